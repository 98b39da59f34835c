"""Scores of the mode `official` beside those of the published programs' own classes, on the same files.

`python -m tests.parity` (`make parity`) fetches nothing: variables name the checkouts.
"""
