"""Vision-language models: the interface, clients, checked answers, checkpoints.

The one room that the benchmark uses too, for its judges.
"""
