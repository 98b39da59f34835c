"""Bases of several tasks: from finished samples, from scenes, from named objects, to control signals.

A task subclasses one of them.
"""
