"""Long videos a window at a time: where windows lie, frames read when needed, and what survives a kill."""
