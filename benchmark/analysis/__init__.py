"""Beyond one run: comparisons, correlation with people, ablations, the paper's tables.

Works on the files that runs leave.
"""
