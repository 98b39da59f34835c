"""What every task rests on: the task's base class, its cache of results, what it asks of annotators.

A task is written against this room.
"""
