"""Shortcuts of sampling: less work per edit, at a loss that is measured."""
