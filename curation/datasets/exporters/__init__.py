"""Samples as what other trainers read, and as data sets for the Hugging Face Hub."""
