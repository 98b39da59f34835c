"""Where media come from: clips cut out of videos, filters on them, files that are fetched.

Knows nothing of tasks.
"""
