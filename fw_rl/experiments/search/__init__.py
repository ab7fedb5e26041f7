"""Trainings side by side, and the search of settings by many of them."""
