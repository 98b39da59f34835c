"""What is compared: editors that run on a suite's items, and folders of results that somebody made before."""
