"""The embedded demo checkpoint: its weights, how they were trained, how the file is assembled."""
