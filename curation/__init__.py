"""curation: clips in, edit pairs out, as shards.

`python -m curation --help` lists the commands; a task's whole recipe is in `curation/tasks/`.
"""
