"""The speedrun: from clips and a base to a scored editor, stage after stage (`scripts/speedrun.sh`).

The script prints the stages and their commands; `runner` carries out those that are not done yet.
"""
