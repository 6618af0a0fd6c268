"""Heads: from a backbone's features to one joint distribution over the 18 classes.

A head is an `nn.Module` with four methods (abstract in `Head`):

    outputs(features [B, F]) -> {name: raw [B, K]}      what its losses see; names are mask, gender, age or joint
    targets(Target) -> {name: Known([B, K], [B])}       the same names; linear in the Target, so mixing commutes with it
    joint(outputs) -> [B, 18]                           probabilities, rows sum to 1
    years(outputs) -> [B] | None                        an age in years where the head has one

Nothing outside this file asks which head it is. The name of an output is also the recipe key of its loss
(`loss.age`; `joint` uses `loss.default`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from threefold.errors import RecipeError
from threefold.labels import CLASSES, SIZES
from threefold.learn.target import Known, Target

Outputs = dict[str, Tensor]


class Head(nn.Module, ABC):
    """Contract of every row of HEADS; see the module's docstring. Abstract methods only: heads share no behaviour."""

    @abstractmethod
    def outputs(self, features: Tensor) -> Outputs:
        """Features [B, F] -> raw outputs by name, each [B, K]."""

    @abstractmethod
    def targets(self, target: Target) -> dict[str, Known]:
        """What each output is trained on, linear in the target."""

    @abstractmethod
    def joint(self, outputs: Outputs) -> Tensor:
        """Probabilities of the 18 classes, [B, 18]."""

    @abstractmethod
    def years(self, outputs: Outputs) -> Tensor | None:
        """Age in years, [B], or None where the head has none."""


class Multi(Head):
    """Three classifiers 3 + 2 + 3 on shared features; the joint is their product (independent given the photo).

    hidden: widths of the hidden layers of each classifier (none: linear); a hidden layer is Linear, BatchNorm, ReLU,
    Dropout. dropout also stands before the last layer.
    """

    def __init__(self, features: int, *, hidden: list[int] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.mask, self.gender, self.age = (
            _classifier(features, size, hidden or [], dropout) for size in SIZES.values()
        )

    def outputs(self, features: Tensor) -> Outputs:
        """Logits mask [B, 3], gender [B, 2], age [B, 3]."""
        return {"mask": self.mask(features), "gender": self.gender(features), "age": self.age(features)}

    def targets(self, target: Target) -> dict[str, Known]:
        """The three attribute masses."""
        parts = {"mask": target.mask, "gender": target.gender, "age": target.age_group}
        return {name: Known(mass, mass.sum(1)) for name, mass in parts.items()}

    def joint(self, outputs: Outputs) -> Tensor:
        """Product of the three distributions, [B, 18]."""
        mask, gender, age = (outputs[name].softmax(1) for name in ("mask", "gender", "age"))
        return (mask[:, :, None, None] * gender[:, None, :, None] * age[:, None, None, :]).flatten(1)

    def years(self, outputs: Outputs) -> Tensor | None:
        """None: groups are not years."""
        return None


class Flat18(Head):
    """One softmax over the 18 classes. Photos whose labels are partly unknown train the marginals that are known.

    A fully known photo is trained on the joint alone; otherwise each known attribute is trained on the log-sum-exp of
    its classes' logits, whose softmax is exactly the marginal of the joint softmax.
    """

    def __init__(self, features: int, *, hidden: list[int] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.classifier = _classifier(features, CLASSES, hidden or [], dropout)

    def outputs(self, features: Tensor) -> Outputs:
        """Logits joint [B, 18] and their marginal logits mask [B, 3], gender [B, 2], age [B, 3]."""
        joint = self.classifier(features)
        cube = joint.view(-1, *SIZES.values())
        mask, gender, age = cube.logsumexp((2, 3)), cube.logsumexp((1, 3)), cube.logsumexp((1, 2))
        return {"joint": joint, "mask": mask, "gender": gender, "age": age}

    def targets(self, target: Target) -> dict[str, Known]:
        """The joint where it is known; of each attribute what the joint does not already say."""
        cube = target.joint.view(-1, *SIZES.values())
        parts = {
            "joint": target.joint,
            "mask": target.mask - cube.sum((2, 3)),
            "gender": target.gender - cube.sum((1, 3)),
            "age": target.age_group - cube.sum((1, 2)),
        }
        # differences of masses that are equal by construction leave rounding of either sign after mixing
        parts = {name: mass.clamp_min(0) for name, mass in parts.items()}
        return {name: Known(mass, mass.sum(1)) for name, mass in parts.items()}

    def joint(self, outputs: Outputs) -> Tensor:
        """Softmax, [B, 18]."""
        return outputs["joint"].softmax(1)

    def years(self, outputs: Outputs) -> Tensor | None:
        """None: groups are not years."""
        return None


def _classifier(features: int, classes: int, hidden: list[int], dropout: float) -> nn.Sequential:
    if not 0 <= dropout < 1 or any(width < 1 for width in hidden):
        raise RecipeError(
            f"model.head: hidden={hidden}, dropout={dropout}; expected widths of 1 or more, 0 <= dropout < 1"
        )
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        features = width
    if not hidden:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(features, classes))


def merge(outputs: list[Outputs]) -> Outputs:
    """Outputs of several batches, one after the other."""
    return {name: torch.cat([part[name] for part in outputs]) for name in outputs[0]}


HEADS = {"flat18": Flat18, "multi": Multi}
