"""Instructions and captions: templates, captions by measurement, captions and grades by a VLM.

All the words of a sample.
"""
