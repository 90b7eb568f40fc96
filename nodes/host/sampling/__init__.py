"""The host's sampling as a function of its noise: differentiable, repeatable, replayable."""
