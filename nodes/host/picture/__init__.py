"""From latents to pictures, with a gradient."""
