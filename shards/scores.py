"""Stored scores of the samples of a folder."""
