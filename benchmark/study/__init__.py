"""The human study: blind comparisons of edited videos in a browser, and what their votes say.

A study is a folder: `study.yaml` (its definition, fixed when it was made), `media/` (videos prepared so that
nothing but their pictures differs), and a database of raters and votes (SQLite in the folder, or PostgreSQL).
"""
