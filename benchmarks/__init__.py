"""Measurements: quality, speed and memory, each by one command through `python run.py exec`."""
