"""The machine that a training runs on: a GPU where there is one, else the processor.

Knows no recipe's contents and no network's form.
"""

from __future__ import annotations

import torch

from cxr_node.model.networks import Network


def chosen(threads: int) -> torch.device:
    """Choose the device, and make its arithmetic repeatable."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by how busy the machine is
    torch.backends.cudnn.deterministic = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def of(network: Network) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device


def placed(batch: torch.Tensor, network: Network) -> torch.Tensor:
    """Bring a batch of images to a network, in the order of memory that convolutions are fastest with."""
    return batch.to(of(network), memory_format=torch.channels_last)
