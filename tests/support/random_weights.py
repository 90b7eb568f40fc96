"""Weights for tests of networks whose published ones are gigabytes."""

import torch


@torch.no_grad()
def randomise(network):
    """Weights large enough that every layer matters."""
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=1.2 * weight[0].numel() ** -0.5)
        elif name.endswith("bias"):
            weight.normal_(std=0.1)
    return network


def hollow(network):
    """Weights with the names and shapes of a network's, in half precision, that take no memory."""
    spare = torch.zeros((), dtype=torch.bfloat16)
    return {n: spare.expand(tensor.shape) for n, tensor in network.state_dict().items()}
