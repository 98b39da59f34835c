"""What is ours and not the paper's: the copy head and the transfer of details.

All of it is off unless a configuration asks for it.
"""
