"""Editing: from an instruction and media to edited media.

`model.inference.editor.Editor` is the whole of it, and `model.Editor` its public name.
"""
