"""What suites, metrics and reports pass to each other: items, scores, statistics.

Knows no suite and no metric.
"""
