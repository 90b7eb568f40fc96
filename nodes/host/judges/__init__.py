"""Networks of learned rewards: found, fetched and loaded as ComfyUI's own models are."""
