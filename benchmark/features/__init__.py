"""Frozen networks that metrics ask what a frame, a video or a text is like; weights load at first use."""
