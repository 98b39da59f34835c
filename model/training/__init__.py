"""Training: the loop, its settings, checkpoints, run folders and processes.

`model.training.trainer.fit` is the whole of it.
"""
