"""What a step costs and how the ranks share it, known before anything is loaded.

Operations, memory, balance, and the reports about them.
"""
