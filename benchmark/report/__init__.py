"""What a person looks at: the page, tables, charts and contact sheets.

Shows a finished run and computes nothing new.
"""
