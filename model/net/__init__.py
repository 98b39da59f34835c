"""The transformer (paper, 3.2 and A.1): its blocks, attention, and attention shared by ranks.

Knows nothing of data or losses.
"""
