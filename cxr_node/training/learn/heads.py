"""What is taught where several populations share a trunk, where a film is shown twice, and where others know better.

Losses here are of the labelled images of a batch alone; logits have a column for each population's head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from cxr_node.errors import ConfigError
from cxr_node.model import networks, profile, weights
from cxr_node.model.networks import Network
from cxr_node.training.data.images import Item
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import DistillationSection, TogetherSection, TwiceSection
from cxr_node.training.learn.checkpoint import State, mean_of
from cxr_node.training.measure import inference

Bools = NDArray[np.bool_]
HEADS = frozenset({"classifier", "outsider"})
"""First parts of the names of what need not fit a training that is begun from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of the labelled images of a batch, one row each.

    Attributes
    ----------
    target : float32, shape (images, 1), probability of positive
    head : int64, shape (images,), the column of its population
    spared : bool, shape (images,), whether it teaches its own head only
    taught : float32, shape (images,), calibrated logit of its teachers; not a number where they saw another film
    """

    target: torch.Tensor
    head: torch.Tensor
    spared: torch.Tensor
    taught: torch.Tensor

    def to(self, where: torch.device) -> Told:
        """The same on a device."""
        return Told(
            target=self.target.to(where),
            head=self.head.to(where),
            spared=self.spared.to(where),
            taught=self.taught.to(where),
        )


def own_logit(logits: torch.Tensor, told: Told) -> torch.Tensor:
    """What each image's own head says: (images, heads) -> (images,)."""
    return logits.gather(1, told.head[:, None])[:, 0]


def _others(logits: torch.Tensor, told: Told) -> torch.Tensor:
    """What the heads of other populations say: (images, heads) -> (images, heads - 1)."""
    other = torch.ones_like(logits, dtype=torch.bool).scatter(1, told.head[:, None], value=False)
    return logits[other].reshape(len(logits), -1)


def together_loss(section: TogetherSection, logits: torch.Tensor, told: Told) -> torch.Tensor:
    """Cross-entropy of each image's own head, and with less weight of the others: an opacity is an opacity."""
    target = told.target[:, 0]
    loss = nnf.binary_cross_entropy_with_logits(own_logit(logits, told), target)
    shown = ~told.spared
    if section.other_heads > 0.0 and bool(shown.any()):
        others = _others(logits, told)[shown]
        wanted = target[shown][:, None].expand_as(others)
        loss = loss + section.other_heads * nnf.binary_cross_entropy_with_logits(others, wanted)
    return loss


def twice_loss(section: TwiceSection, logits: torch.Tensor, told: Told) -> torch.Tensor:
    """Squared difference of the two answers to a film; left out where an opacity was drawn into one of them.

    The second half of the batch are the films of the first, in their order.
    """
    films = len(logits) // 2
    same = told.target[:films, 0] == told.target[films:, 0]
    if not bool(same.any()):
        return logits.new_zeros(())
    own = own_logit(logits, told)
    loss = section.own * (own[:films] - own[films:])[same].square().mean()
    if section.other > 0.0 and logits.shape[1] > 1:
        others = _others(logits, told)
        loss = loss + section.other * (others[:films] - others[films:])[same].square().mean()
    return loss


def distilled_loss(section: DistillationSection, logits: torch.Tensor, told: Told) -> torch.Tensor:
    """Cross-entropy with the teachers' softened answer, times T squared as Hinton et al. have it; of known ones."""
    known = ~told.taught.isnan()
    if not bool(known.any()):
        return logits.new_zeros(())
    soft = torch.sigmoid(told.taught[known] / section.temperature)
    own = own_logit(logits, told)[known] / section.temperature
    return section.temperature**2 * nnf.binary_cross_entropy_with_logits(own, soft)


def taught(teachers: Sequence[str], beside: Path, items: Sequence[Item], on_image: Callable[[], None]) -> list[float]:
    """Ask the teachers: the mean of their calibrated logits of each film as it is, in one view.

    Not numbers without teachers.

    Raises ModelError: a teacher is no complete profile.
    """
    if not teachers:
        return [float("nan")] * len(items)
    said = []
    for name in teachers:
        teacher = profile.load(beside / name)
        network, _ = weights.load(teacher.weights_path, teacher.network, len(teacher.labels))
        own = []
        for start in range(0, len(items), inference.BATCH):
            inputs = inference.prepared(items[start : start + inference.BATCH], teacher.input, on_image)
            own.append(inference.logits(network, inputs))
        said.append(teacher.slope * np.concatenate(own) + teacher.intercept)
    return [float(one) for one in np.mean(said, axis=0)]


def served(recipe: Recipe, network: Network) -> Network:
    """Make the network that answers in the profile: one head, the profile's own or the mean of all.

    A network of one population is served as it is.
    """
    if recipe.together is None:
        return network
    single = networks.build(recipe.network_spec, len(recipe.labels))
    state = network.state_dict()
    for name, value in single.state_dict().items():
        if state[name].shape != value.shape:  # the last layer: a row for each head
            state[name] = state[name][: recipe.serves].mean(dim=0, keepdim=True)
    single.load_state_dict(state)
    return single


def averaged(recipe: Recipe, beside: Path, own: State) -> State:
    """Average the last weights with those of other trainings, in equal parts.

    Raises ConfigError: a checkpoint is not there, or not of this network.
    """
    states = [own]
    for name in recipe.average_with:
        other = last_weights(beside / name)
        if {key: value.shape for key, value in other.items()} != {key: value.shape for key, value in own.items()}:
            raise ConfigError(f"{beside / name} does not hold the weights of this network")
        states.append({key: value.to(own[key].device) for key, value in other.items()})
    return mean_of(states) if len(states) > 1 else own


def last_weights(checkpoint: Path) -> State:
    """Read the averaged weights of a training's checkpoint. Raises ConfigError: it cannot be read, or holds none."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        found: State = content["average"] or content["ema"]
    except OSError as error:
        raise ConfigError(f"{checkpoint} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever the unpickler says of a file that is none
        raise ConfigError(f"{checkpoint} is no checkpoint of cxr-node train") from error
    return found


def begin_from(network: Network, checkpoint: Path) -> None:
    """Give a network the weights of another training; heads that are of another number begin anew.

    Raises ConfigError: it is not of this network.
    """
    state, mine = last_weights(checkpoint), network.state_dict()
    heads = {name for name in mine if name.split(".")[0] in HEADS}
    fitting = {name: value for name, value in state.items() if name in mine and mine[name].shape == value.shape}
    if set(mine) - set(fitting) - heads:
        raise ConfigError(f"{checkpoint} does not hold the weights of this network")
    network.load_state_dict(mine | fitting)
