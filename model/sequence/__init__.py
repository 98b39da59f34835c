"""Text and vision as one interleaved sequence (paper, 3.1): tokens, 4-D positions, packing.

Knows nothing of networks or files.
"""
