"""Measurements: of quality by `python run.py sweep FILE`, others by `python run.py exec`."""
