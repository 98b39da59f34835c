"""A run: edits or results of others in, scores out, each computed once.

`benchmark.evaluation.runner.execute` is the whole of it.
"""
