"""Data in and out: pairs of others become samples, and samples become what others read."""
