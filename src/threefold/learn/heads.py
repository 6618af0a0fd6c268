"""Heads: from a backbone's features to one joint distribution over the 18 classes.

A head is an `nn.Module` with the methods and properties of `Head`; nothing outside this file asks which one it is. The
name of an output, up to a dot, is also the recipe key of its loss (`age.male` is trained with `loss.age`).
"""

from abc import abstractmethod
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from threefold.errors import RecipeError
from threefold.labels import CLASSES, NAMES, SIZES, UNKNOWN
from threefold.learn.ages import Age, Outputs, Softmax, Trained, bind_age
from threefold.learn.target import YEARS, SoftTarget, Target


class Head(Trained):
    """Contract of every row of HEADS.

    attributes: those that the joint depends on, all of mask, gender, age_group unless a head has only one.
    """

    attributes: tuple[str, ...] = tuple(SIZES)

    @abstractmethod
    def joint(self, outputs: Outputs) -> Tensor:
        """Probabilities of the 18 classes, [B, 18]; rows sum to 1."""


class Multi(Head):
    """Classifiers of mask, gender and age; the joint is their product (independent given the photo).

    hidden: widths of the hidden layers of each classifier (none: linear); a hidden layer is Linear, BatchNorm, ReLU,
    Dropout. dropout also stands before the last layer; samples: the logits are the mean of that many of its draws
    (Inoue, "Multi-Sample Dropout", 2019). age: an age output of `ages.py`. conditioned: one age output for each gender,
    trained on its photos, and the joint is P(mask) P(gender) P(age | gender). split: features are three equal parts,
    one for each classifier, of a backbone split in three.
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: list[int] | None = None,
        dropout: float = 0.0,
        age: str = "groups",
        conditioned: bool = False,
        split: bool = False,
        samples: int = 1,
    ) -> None:
        super().__init__()
        if split and features % 3:
            raise RecipeError(f"model.head: multi(split=True) on {features} features; expected a backbone split(NAME)")
        layers = partial(_classifier, features // 3 if split else features, hidden or [], dropout, samples)
        self.split, self.conditioned = split, conditioned
        self.suffixes = [f".{name}" for name in NAMES["gender"]] if conditioned else [""]
        self.mask, self.gender = (Softmax(layers, name, name) for name in ("mask", "gender"))
        self.ages = nn.ModuleList(bind_age(age)(layers) for _ in self.suffixes)
        self.kinds = self.mask.kinds | self.gender.kinds | ({"age_group": "classes"} if conditioned else {})
        for suffix, part in self._ages():
            self.kinds |= {name + suffix: kind for name, kind in part.kinds.items()}

    def outputs(self, features: Tensor) -> Outputs:
        """Logits mask [B, 3], gender [B, 2], and those of the age output; conditioned: with the gender as a suffix.

        Conditioned, `age_group` [B, 3] is the log of sum over genders of P(gender) P(age group | gender), for photos
        that know an age and no gender.
        """
        mask, gender, age = features.chunk(3, 1) if self.split else (features,) * 3
        outputs = self.mask.outputs(mask) | self.gender.outputs(gender)
        for suffix, part in self._ages():
            outputs |= {name + suffix: raw for name, raw in part.outputs(age).items()}
        if self.conditioned:
            logits = [part.logits(_with_suffix(outputs, suffix)) for suffix, part in self._ages()]
            log_groups = torch.stack(logits, 1).log_softmax(2)  # given the gender, [B, 2, 3]
            outputs["age_group"] = (outputs["gender"].log_softmax(1)[:, :, None] + log_groups).logsumexp(1)
        return outputs

    def targets(self, target: Target) -> dict[str, SoftTarget]:
        """The masses of mask and gender, and what the age output makes of the target (of each gender's share of it)."""
        targets = self.mask.targets(target) | self.gender.targets(target)
        for code, (suffix, part) in enumerate(self._ages()):
            share = target.of_gender(code) if self.conditioned else target
            targets |= {name + suffix: soft for name, soft in part.targets(share).items()}
        if self.conditioned:
            targets["age_group"] = SoftTarget.of(target.of_gender(UNKNOWN).age_group)
        return targets

    def joint(self, outputs: Outputs) -> Tensor:
        """Product of the three distributions, [B, 18]."""
        mask, gender = self.mask.groups(outputs), self.gender.groups(outputs)
        # P(age group | gender), [B, 2, 3], or [B, 1, 3] where it is the same for both
        groups = torch.stack([part.groups(_with_suffix(outputs, suffix)) for suffix, part in self._ages()], 1)
        return (mask[:, :, None, None] * gender[:, None, :, None] * groups[:, None]).flatten(1)

    def years(self, outputs: Outputs) -> Tensor | None:
        """Those of the age output; conditioned: their mean over the genders."""
        years = [part.years(_with_suffix(outputs, suffix)) for suffix, part in self._ages()]
        numbers = [part for part in years if part is not None]
        if len(numbers) < 2:
            return numbers[0] if numbers else None
        return (self.gender.groups(outputs) * torch.stack(numbers, 1)).sum(1).clamp_max(YEARS - 1)

    def _ages(self) -> list[tuple[str, Age]]:
        return [(suffix, cast(Age, part)) for suffix, part in zip(self.suffixes, self.ages, strict=True)]


class Flat18(Head):
    """One softmax over the 18 classes. Photos whose labels are partly unknown train the marginals that are known.

    A fully known photo is trained on the joint alone; otherwise each known attribute is trained on the log-sum-exp of
    its classes' logits, whose softmax is exactly the marginal of the joint softmax.
    """

    kinds = dict.fromkeys(("joint", "mask", "gender", "age"), "classes")

    def __init__(self, features: int, *, hidden: list[int] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.classifier = _classifier(features, hidden or [], dropout, 1, CLASSES)

    def outputs(self, features: Tensor) -> Outputs:
        """Logits joint [B, 18] and their marginal logits mask [B, 3], gender [B, 2], age [B, 3]."""
        joint = self.classifier(features)
        cube = joint.view(-1, *SIZES.values())
        mask, gender, age = cube.logsumexp((2, 3)), cube.logsumexp((1, 3)), cube.logsumexp((1, 2))
        return {"joint": joint, "mask": mask, "gender": gender, "age": age}

    def targets(self, target: Target) -> dict[str, SoftTarget]:
        """The joint where it is known; of each attribute the mass that is not in the joint already."""
        cube = target.joint.view(-1, *SIZES.values())
        parts = {
            "joint": target.joint,
            "mask": target.mask - cube.sum((2, 3)),
            "gender": target.gender - cube.sum((1, 3)),
            "age": target.age_group - cube.sum((1, 2)),
        }
        # differences of masses that are equal by construction leave rounding of either sign after mixing
        return {name: SoftTarget.of(mass.clamp_min(0)) for name, mass in parts.items()}

    def joint(self, outputs: Outputs) -> Tensor:
        """Softmax, [B, 18]."""
        return outputs["joint"].softmax(1)


class One(Head):
    """One attribute alone, for a system of three networks; the joint is uniform over the other two attributes.

    attribute: mask, gender or age. hidden, dropout, samples, age: as in `multi`.
    """

    def __init__(
        self,
        features: int,
        attribute: Literal["mask", "gender", "age", "age_group"],
        *,
        hidden: list[int] | None = None,
        dropout: float = 0.0,
        age: str = "groups",
        samples: int = 1,
    ) -> None:
        super().__init__()
        layers = partial(_classifier, features, hidden or [], dropout, samples)
        self.axis = {"mask": 0, "gender": 1}.get(attribute, 2)
        if self.axis < 2 and age != "groups":
            raise RecipeError(f"model.head: one({attribute}) has no age output; age={age} needs one(age)")
        self.part: Age = Softmax(layers, attribute, attribute) if self.axis < 2 else bind_age(age)(layers)
        self.kinds, self.attributes = self.part.kinds, (tuple(SIZES)[self.axis],)
        self.shape = [size if at == self.axis else 1 for at, size in enumerate(SIZES.values())]

    def outputs(self, features: Tensor) -> Outputs:
        """The one attribute's."""
        return self.part.outputs(features)

    def targets(self, target: Target) -> dict[str, SoftTarget]:
        """The one attribute's."""
        return self.part.targets(target)

    def joint(self, outputs: Outputs) -> Tensor:
        """Its distribution, shared out evenly among the classes with the same value; [B, 18]."""
        groups = self.part.groups(outputs)
        even = groups.view(-1, *self.shape) * (groups.shape[1] / CLASSES)
        return even.expand(-1, *SIZES.values()).flatten(1)

    def years(self, outputs: Outputs) -> Tensor | None:
        """Those of the age output."""
        return self.part.years(outputs)


class _Dropout(nn.Dropout):
    """Mean of several draws of dropout. Before a linear layer that is the mean of as many draws of its outputs."""

    def __init__(self, p: float, samples: int) -> None:
        super().__init__(p)
        self.samples = samples

    def forward(self, features: Tensor) -> Tensor:
        """The mean in training, the features themselves in evaluation."""
        if not self.training:
            return features
        return torch.stack([nn.functional.dropout(features, self.p) for _ in range(self.samples)]).mean(0)


def _classifier(features: int, hidden: list[int], dropout: float, samples: int, classes: int) -> nn.Sequential:
    if not 0 <= dropout < 1 or any(width < 1 for width in hidden) or not 1 <= samples <= (1e9 if dropout else 1):
        raise RecipeError(
            f"model.head: hidden={hidden}, dropout={dropout}, samples={samples}; expected widths of 1 or more, "
            "0 <= dropout < 1, samples of 1 or more (1 without dropout)"
        )
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        features = width
    layers[-1:] = [_Dropout(dropout, samples)]  # of the last hidden layer, or the only one
    return nn.Sequential(*layers, nn.Linear(features, classes))


def _with_suffix(outputs: Outputs, suffix: str) -> Outputs:
    """The outputs with that suffix, without it."""
    return {name.removesuffix(suffix): raw for name, raw in outputs.items() if name.endswith(suffix)}


def merge(outputs: list[Outputs]) -> Outputs:
    """Outputs of several batches, one after the other."""
    return {name: torch.cat([part[name] for part in outputs]) for name in outputs[0]}


HEADS = {"flat18": Flat18, "multi": Multi, "one": One}
