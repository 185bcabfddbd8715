"""Scores of predictions, equal to those of each task's official scorer. One family per file, in Python and numpy."""
