"""An editor's results -> scores, tables and a page to look at.

Nothing heavy is imported here; `python -m benchmark --help` lists the commands.
"""
