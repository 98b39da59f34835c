"""Small wrong changes that the tests must notice: `python -m tests.mutants` (`make mutants`)."""
