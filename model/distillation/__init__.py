"""A trained editor taught to edit in a few steps and without guidance."""
