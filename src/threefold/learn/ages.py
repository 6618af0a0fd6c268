"""Age outputs of a head, and how the scored groups (<30, 30-59, >=60) and years are read off them.

An age output is a component inside a head: `multi(age=bins11)`, `multi(age=dldl(sigma=2))`. Its contract is `Age`:

    outputs(features [B, F]) -> {name: raw [B, K]}       names are age, age_group, years
    targets(Target) -> {name: SoftTarget([B, K], [B])}   the same names; linear in the Target
    groups(outputs) -> [B, 3]                            probabilities of the scored groups, rows sum to 1
    years(outputs) -> [B] | None                         in 0..120
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from threefold import spec
from threefold.errors import RecipeError
from threefold.labels import CUTS, SIZES
from threefold.learn.target import YEARS, SoftTarget, Target

Outputs = dict[str, Tensor]
SCORED = list(CUTS)
Layers = Callable[[int], nn.Module]
"""Makes the layers from a head's features to that many raw numbers."""


@cache
def bind_age(text: str) -> Callable[[Layers], Age]:
    """The age output that a head's `age` names, checked; every text is parsed once. Raises RecipeError."""
    return spec.bind_one(text, AGES, "model.head", 1)


class Trained(nn.Module, ABC):
    """What age outputs and heads have in common.

    kinds: what the raw numbers of each output are, and so which loss fits: "classes" (logits of a softmax), "steps"
    (logits of P(age >= start of each step)) or "value" (years).
    """

    kinds: dict[str, str]

    @abstractmethod
    def outputs(self, features: Tensor) -> Outputs:
        """Features [B, F] -> raw outputs by name, each [B, K]: what the losses see."""

    @abstractmethod
    def targets(self, target: Target) -> dict[str, SoftTarget]:
        """What each output is trained on, by the same names; linear in the target, so that mixing commutes with it."""

    def years(self, outputs: Outputs) -> Tensor | None:
        """Age in years, [B], or None where groups are all that is known."""
        return None


class Age(Trained):
    """Contract of every row of AGES; see the module's docstring. The first argument of a row is `Layers`."""

    @abstractmethod
    def logits(self, outputs: Outputs) -> Tensor:
        """What photos that know no more than the group train: log probabilities up to a constant, [B, 3]."""

    def groups(self, outputs: Outputs) -> Tensor:
        """Probabilities of the scored groups, [B, 3]."""
        return self.logits(outputs).softmax(1)


class Softmax(Age):
    """One softmax over the values of an attribute; `mass` is the field of the Target that holds them."""

    def __init__(self, layers: Layers, name: str, mass: str) -> None:
        super().__init__()
        self.name, self.mass, self.kinds = name, mass, {name: "classes"}
        self.classifier = layers(SIZES[mass])

    def outputs(self, features: Tensor) -> Outputs:
        """Logits [B, K]."""
        return {self.name: self.classifier(features)}

    def targets(self, target: Target) -> dict[str, SoftTarget]:
        """The attribute's mass."""
        return {self.name: SoftTarget.of(getattr(target, self.mass))}

    def logits(self, outputs: Outputs) -> Tensor:
        """The output, [B, K]."""
        return outputs[self.name]


class Groups(Softmax):
    """The three groups as three classes: `age` [B, 3]."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(layers, "age", "age_group")


class _Dated(Age):
    """Trained on the year, by one linear map [121, K] per output.

    Also answers with `age_group`, the logarithms of the groups' probabilities up to a constant. Only photos that know
    their group and no year train it, so that no year is counted twice.
    """

    def __init__(self, kinds: dict[str, str], **maps: Tensor) -> None:
        super().__init__()
        self.kinds = kinds | {"age_group": "classes"}
        for name, matrix in maps.items():  # buffers follow the device; nothing of them belongs in a checkpoint
            self.register_buffer(f"map_{name}", matrix.float(), persistent=False)

    def targets(self, target: Target) -> dict[str, SoftTarget]:
        """Masses of years through the maps, and the group masses of photos without a year."""
        years = target.years
        maps = {name: getattr(self, f"map_{name}") for name in self.kinds if name != "age_group"}
        targets = {name: SoftTarget(years @ matrix, years.sum(1)) for name, matrix in maps.items()}
        return targets | {"age_group": SoftTarget.of(target.yearless)}

    def logits(self, outputs: Outputs) -> Tensor:
        """`age_group`, [B, 3]."""
        return outputs["age_group"]


class _Classes(_Dated):
    """A softmax over bins of years; `groups` sums the bins by `cuts`, `age_group` is trained by the scored ones."""

    values: Tensor

    def __init__(self, layers: Layers, starts: Sequence[int], cuts: Sequence[int] = CUTS, **maps: Tensor) -> None:
        kinds = {"age": "classes"} | ({"years": "value"} if "years" in maps else {})
        bin_of = torch.bucketize(torch.arange(YEARS), torch.tensor(starts), right=True) - 1
        one_hot = nn.functional.one_hot(bin_of.clamp_min(0), len(starts))  # [121, bins]
        super().__init__(kinds, **({"age": one_hot} | maps))
        self.classifier = layers(len(starts))
        self.scored_sizes, self.cut_sizes = _sizes(starts, CUTS), _sizes(starts, cuts)
        self.register_buffer("values", torch.tensor(starts).float(), persistent=False)

    def outputs(self, features: Tensor) -> Outputs:
        """Logits age [B, bins] and age_group [B, 3]."""
        raw = self.classifier(features).float()
        return {"age": raw, "age_group": _pool(raw, self.scored_sizes)}

    def groups(self, outputs: Outputs) -> Tensor:
        """Sums of the bins' probabilities, [B, 3]."""
        return _pool(outputs["age"], self.cut_sizes).softmax(1)

    def expectation(self, raw: Tensor) -> Tensor:
        """Mean year of the bins' first years, [B]; no matrix product, which autocast would round to a quarter year."""
        return (raw.softmax(1) * self.values).sum(1)


class Bins(_Classes):
    """A softmax over bins of years. starts: first year of each bin, 0 first, 30 and 60 among them."""

    def __init__(self, layers: Layers, *, starts: list[int]) -> None:
        super().__init__(layers, _checked(starts))


class Bins11(_Classes):
    """Eleven bins of about as many people each in the contest's data; the last is 60 and over."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(layers, (0, 19, 20, 21, 25, 30, 49, 53, 56, 58, 60))


class Years61(_Classes):
    """A softmax over the years 0..60, older ones at 60. cuts: first year of the middle and of the old group in reading.

    Reading by other cuts than the scored ones (0 < 31 < 59 was best for one team) is a decision; training knows none.
    """

    def __init__(self, layers: Layers, *, cuts: list[int] = SCORED) -> None:
        super().__init__(layers, range(61), _between(cuts, 0, 60))

    def years(self, outputs: Outputs) -> Tensor:
        """Expectation, [B] in 0..60."""
        return self.expectation(outputs["age"])


class Dldl(_Classes):
    """Label distribution with expectation, DLDL-v2 (Gao et al., "Age Estimation Using Expectation of Label Distribution
    Learning", 2018).

    `age` is trained on a Gaussian of `sigma` years around the year over low..high, `years` is the distribution's
    expectation. Years outside low..high count as its ends. cuts: as in `years61`.
    """

    def __init__(
        self, layers: Layers, *, sigma: float = 2.0, low: int = 0, high: int = 100, cuts: list[int] = SCORED
    ) -> None:
        if not sigma > 0 or not 0 <= low < CUTS[0] or not CUTS[1] <= high < YEARS:
            raise RecipeError(
                f"model.head: dldl sigma={sigma}, low={low}, high={high}; expected sigma above 0 and years from below "
                f"{CUTS[0]} to {CUTS[1]} or more, within 0..{YEARS - 1}"
            )
        centres = torch.arange(YEARS).clamp(low, high)[:, None].double()
        distributions = (-((torch.arange(low, high + 1) - centres) ** 2) / (2 * sigma**2)).softmax(1)
        super().__init__(layers, range(low, high + 1), _between(cuts, low, high), age=distributions, years=centres)

    def outputs(self, features: Tensor) -> Outputs:
        """Logits age [B, years] and age_group [B, 3], and the expectation years [B, 1]."""
        outputs = super().outputs(features)
        return outputs | {"years": self.expectation(outputs["age"])[:, None]}

    def years(self, outputs: Outputs) -> Tensor:
        """The expectation, [B] in low..high."""
        return outputs["years"][:, 0].clamp(0, YEARS - 1)


class Regression(_Dated):
    """One number, the age in years. The groups are cut at 29.5 and 59.5, softened over `scale` years.

    Log-odds between neighbouring groups are (years - edge) / scale, so the likeliest group is always the one that the
    edges give, whatever the scale.
    """

    def __init__(self, layers: Layers, *, scale: float = 2.0) -> None:
        if not scale > 0:
            raise RecipeError(f"model.head: regression scale={scale}; expected years above 0")
        super().__init__({"years": "value"}, years=torch.arange(YEARS)[:, None])
        self.classifier, self.scale = layers(1), scale

    def outputs(self, features: Tensor) -> Outputs:
        """years [B, 1], logits age_group [B, 3]."""
        # a raw 0 is 40 years and 1 is 20 years: about the mean and the spread of the contest's people
        years = 40 + 20 * self.classifier(features).float()
        middle, old = ((years - cut + 0.5) / self.scale for cut in CUTS)
        return {"years": years, "age_group": torch.cat([torch.zeros_like(years), middle, middle + old], 1)}

    def years(self, outputs: Outputs) -> Tensor:
        """The number, [B], clipped to 0..120."""
        return outputs["years"][:, 0].clamp(0, YEARS - 1)


class Coral(_Dated):
    """Ordinal: one binary question per bin after the first, is the age at least its first year? Loss: bce.

    One score and a bias per step; Cao et al., "Rank consistent ordinal regression", 2020. starts: as in `bins`; without
    them yearly from 19 to 60. Nothing forces learned biases to stay in order; where they do not, a step is reached no
    more often than those before it (the cumulative minimum).
    """

    gaps: Tensor
    later: Tensor

    def __init__(self, layers: Layers, *, starts: list[int] | None = None) -> None:
        steps = _checked([0, *range(19, 61)] if starts is None else starts)[1:]
        super().__init__({"age": "steps"}, age=torch.arange(YEARS)[:, None] >= torch.tensor(steps))
        self.edges, self.lowest, count = [steps.index(cut) for cut in CUTS], steps[0] - 1, len(steps)
        gaps = torch.tensor(steps).diff(prepend=torch.tensor([self.lowest]))
        self.register_buffer("gaps", gaps.float(), persistent=False)
        self.register_buffer("later", torch.ones(count, count).triu(1).bool(), persistent=False)
        self.classifier = layers(1)
        self.biases = nn.Parameter(torch.arange(count, 0, -1) / count)  # in order, as its authors start

    def outputs(self, features: Tensor) -> Outputs:
        """Logits age [B, steps] and log probabilities age_group [B, 3]."""
        raw = (self.classifier(features) + self.biases).float()
        middle, old = self._log_reach(raw)[:, self.edges].unbind(1)
        return {"age": raw, "age_group": torch.stack([_log_rest(middle), middle + _log_rest(old - middle), old], 1)}

    def years(self, outputs: Outputs) -> Tensor:
        """Expectation from the cumulative sums, [B]; a bin stands at its first year, the first bin at its last."""
        return self.lowest + (self._log_reach(outputs["age"]).exp() * self.gaps).sum(1)

    def _log_reach(self, raw: Tensor) -> Tensor:
        """log P(age >= start) of each step, [B, steps], never rising: log-sigmoid of the cumulative minimum."""
        # cummin itself has no gradient on every device
        return logsigmoid(raw[:, None].masked_fill(self.later, torch.inf).amin(2))


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 - p), finite where p rounds to 1."""
    return torch.log(-torch.expm1(log_p.clamp_max(-1e-12)))


def _pool(raw: Tensor, sizes: list[int]) -> Tensor:
    """Logits of neighbouring classes -> logits of their unions, [B, len(sizes)]."""
    return torch.stack([part.logsumexp(1) for part in raw.split_with_sizes(sizes, 1)], 1)


def _sizes(starts: Sequence[int], cuts: Sequence[int]) -> list[int]:
    young, middle = (bisect_left(starts, cut) for cut in cuts)
    return [young, middle - young, len(starts) - middle]


def _checked(starts: list[int]) -> list[int]:
    if starts[:1] != [0] or sorted(set(starts)) != starts or starts[-1] >= YEARS or not set(CUTS) <= set(starts):
        raise RecipeError(
            f"model.head: starts={starts}; expected rising first years of bins from 0 to at most {YEARS - 1}, with "
            f"{CUTS[0]} and {CUTS[1]} among them (no bin may lie on both sides of a scored border)"
        )
    return starts


def _between(cuts: list[int], low: int, high: int) -> list[int]:
    if len(cuts) != 2 or not low < cuts[0] < cuts[1] <= high:
        raise RecipeError(f"model.head: cuts={cuts}; expected two rising years after {low}, up to {high}")
    return cuts


AGES = {age.__name__.lower(): age for age in (Groups, Bins, Bins11, Years61, Dldl, Regression, Coral)}
