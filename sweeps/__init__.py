"""Many pictures, on one device or on a Ray cluster: `python run.py sweep FILE`.

plan: what a file asks for, row by row. rows: what is done, on disk. comfy: a row through ComfyUI's
own executor. runners: here, or on Ray. report: the page and the tables.
"""
