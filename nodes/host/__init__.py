"""What ComfyUI must be asked for: differentiable samplers, ordinary weights, decoding, progress."""
