"""Commands of `python -m benchmark` besides run and report.

Thin: each calls one function of another room.
"""
