"""Runs a task over clips: workers, resuming, dry runs, reports.

What `python -m curation run` and `all` call.
"""
