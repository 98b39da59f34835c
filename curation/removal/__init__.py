"""Removing an object from a clip: its silhouette, the pair without it, the filters on both.

For clips that show the background at some time.
"""
