"""Learning from the training images without their labels: hidden and noisy parts are to be reconstructed.

Knows no class. For architectures without ImageNet weights. The decoder is one convolution, so that what is learned
lies in the network (Xie et al. 2022, SimMIM: a heavier one helps nothing); it is thrown away afterwards.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
import torch.nn.utils as nn_utils
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

from cxr_node.model.networks import Network
from cxr_node.training.data import device
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import PretrainingSection, ScheduleSection
from cxr_node.training.learn import checkpoint
from cxr_node.training.learn.checkpoint import TrainingIdentity
from cxr_node.training.synthetic.augment import Augmenter

CHECKPOINT = "pretraining.pt"
CURVES = "pretraining.jsonl"
GRID = 8
"""Hidden cells a side; at 224 px each is 28 px, about three ribs of a child."""
FINENESS = 4
"""What is reconstructed is this many times smaller than the image a side: lungs and vessels, not noise."""


class Reconstruction(nn.Module):
    """A network, and from its last feature map to a small image: each cell becomes a patch."""

    def __init__(self, network: Network, size_px: int) -> None:
        super().__init__()
        where = device.of(network)
        with torch.no_grad():
            channels, cells = network.eval().features(torch.zeros(1, 1, size_px, size_px, device=where)).shape[1:3]
        self.network = network
        self.patch_px = max(1, size_px // FINENESS // cells)
        self.decoder = nn.Conv2d(channels, self.patch_px**2, 1, device=where)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, size_px, size_px) -> (batch, 1, cells * patch_px, cells * patch_px)."""
        return nnf.pixel_shuffle(self.decoder(self.network.features(x)), self.patch_px)


def run(
    recipe: Recipe, network: Network, images: NDArray[np.uint8], out: Path, identity: TrainingIdentity, bar: Progress
) -> None:
    """Reconstruct for as many epochs as the recipe says; the network's trunk ends pre-trained.

    Parameters
    ----------
    network : on its device
    images : uint8, shape (images, source_px, source_px), of the training part alone
    out : holds the checkpoint and the curves; an unfinished pre-training in it is taken up again
    """
    section = recipe.pretraining
    if section is None:
        return
    torch.manual_seed(recipe.seed)
    size_px = recipe.seen_px(0)
    whole = Reconstruction(network, size_px)
    optimizer = torch.optim.AdamW([{"params": list(whole.parameters()), "factor": 1.0}], lr=section.learning_rate)
    epoch = _restored(whole, optimizer, out / CHECKPOINT, identity)
    checkpoint.forget_after(out / CURVES, recipe.seed, epoch)
    steps = -(-section.images_per_epoch // recipe.schedule.batch)
    task = bar.add_task("pretrain", total=section.epochs * steps, completed=epoch * steps)
    augmenter = Augmenter(recipe.augment, recipe.input, recipe.data.source_px, recipe.seed)
    while epoch < section.epochs:
        rng = np.random.default_rng([recipe.seed, epoch, 2])  # other chance than the epochs with labels
        begun, costs = time.monotonic(), []
        for step in range(steps):
            done = (epoch * steps + step) / (section.epochs * steps)
            checkpoint.set_rate(optimizer, section.learning_rate, recipe.schedule.warmup, done)
            shown = images[rng.integers(len(images), size=recipe.schedule.batch)]
            positive = np.ones(len(shown), dtype=bool)  # so that no opacity is drawn into any
            clear = augmenter(shown, positive, rng, size_px=size_px).inputs
            costs.append(_reconstruct(whole, optimizer, (section, recipe.schedule), clear, rng))
            bar.advance(task)
        epoch += 1
        took_s = round(time.monotonic() - begun, 1)
        checkpoint.add_line(out / CURVES, {"epoch": epoch, "loss": round(float(np.mean(costs)), 5), "took_s": took_s})
        content = {"whole": whole.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.write(out / CHECKPOINT, content | {"bound_to": str(identity), "epoch": epoch})


def spoiled(
    clear: torch.Tensor, section: PretrainingSection, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide cells of each image and add noise to the rest.

    Parameters
    ----------
    clear : float32, shape (batch, 1, size_px, size_px), standardised: 0 is its mean

    Returns
    -------
    the spoiled images, and 1 where they are hidden: float32, shape (batch, 1, GRID, GRID)
    """
    hidden = torch.from_numpy((rng.random((len(clear), 1, GRID, GRID)) < section.hidden).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(clear.shape, dtype=np.float32))
    return (clear + section.noise * noise) * (1.0 - nnf.interpolate(hidden, clear.shape[-2:])), hidden


def _reconstruct(
    whole: Reconstruction,
    optimizer: torch.optim.Optimizer,
    sections: tuple[PretrainingSection, ScheduleSection],
    clear: torch.Tensor,
    rng: np.random.Generator,
) -> float:
    section, options = sections
    images, hidden = spoiled(clear, section, rng)
    whole.train()
    images = device.placed(images, whole.network)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=options.bfloat16):
        made = whole(images).float()  # (batch, 1, small, small)
    wanted = nnf.adaptive_avg_pool2d(clear, made.shape[-2:]).to(made.device)
    asked = nnf.interpolate(hidden, made.shape[-2:]).to(made.device)
    loss = ((made - wanted).abs() * asked).sum() / asked.sum().clamp_min(1.0)  # of what was hidden alone
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn_utils.clip_grad_norm_(whole.parameters(), options.clip_norm)
    optimizer.step()
    return float(loss.detach())


def _restored(
    whole: Reconstruction, optimizer: torch.optim.Optimizer, checkpoint_path: Path, identity: TrainingIdentity
) -> int:
    if not checkpoint_path.is_file():
        return 0
    content = checkpoint.read(checkpoint_path, identity)
    whole.load_state_dict(content["whole"])
    optimizer.load_state_dict(content["optimizer"])
    return int(content["epoch"])
