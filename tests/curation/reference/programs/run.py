"""Stands in for Video-Depth-Anything's script, which is looked for and not run."""
