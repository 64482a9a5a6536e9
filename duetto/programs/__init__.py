"""Whole programs that the command line can run by name."""
