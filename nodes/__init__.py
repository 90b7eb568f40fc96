"""The nodes: the only layer that imports ComfyUI."""
