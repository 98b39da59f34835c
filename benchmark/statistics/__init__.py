"""Means, rates, differences, correlations and their intervals; all pairs; how many items it takes.

What each interval covers in simulation: `python -m tests.perf --only '[coverage]'`, docs/benchmark.md.
"""
