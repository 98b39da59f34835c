"""Tasks: one file each, named as on the command line.

A task says which stages a clip passes and how a finished clip becomes samples.
"""
