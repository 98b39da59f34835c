"""Flow matching (paper, 3.3): interpolation, velocity, loss, guidance and solvers.

Pure functions of tensors.
"""
