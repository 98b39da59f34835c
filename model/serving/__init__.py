"""Editing as a service: an HTTP interface, workers, and batches of edits from a table."""
