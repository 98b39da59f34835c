"""How data sets of pairs lie on disk: what is read as rows, format by format."""
