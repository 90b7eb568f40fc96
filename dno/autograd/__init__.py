"""Exact gradients in little memory, in plain torch: it knows nothing of diffusion or of a host."""
