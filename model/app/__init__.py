"""The page to edit in, and the queue behind it.

The only room that needs Gradio.
"""
