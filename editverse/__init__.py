"""The command `editverse`: curation, training, editing and scoring under one name.

The work is in `curation`, `model`, `benchmark` and `shards`; nothing imports this package.
"""
