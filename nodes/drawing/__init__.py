"""Charts, plots and contact sheets with Pillow: the one folder here that imports no ComfyUI."""
