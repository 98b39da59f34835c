"""What a sample is, how it is written and read; media in and out.

The contract between curation, model and benchmark; imports nothing of ours.
"""
