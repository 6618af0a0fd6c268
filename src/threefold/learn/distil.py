"""Distillation: beside the labels, a network learns what earlier runs predict for the very pixels it sees.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; that teacher and pupil must look at the same
augmented and mixed pixels is from Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent",
2022. Photos without a label are learnt from as well. What a teacher knows of a fold's validation people must not reach
that fold: fold k learns from the teacher's fold k, which is refused where that has trained with one of them. The last
network, of all people, learns from the teacher's last network or, where it has none, from the mean of its folds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from threefold import spec
from threefold.data.tables import read_rows
from threefold.errors import LeakError, RecipeError
from threefold.learn.ages import Outputs
from threefold.learn.heads import HEADS, Head
from threefold.learn.losses import Losses
from threefold.learn.net import Net, nets_of
from threefold.photos.prepare import Prepare, parse_size
from threefold.runs import ENSEMBLE, Run
from threefold.spec import need

KEY = "train.distil"


class Teacher:
    """A complete run that teaches; `0.5*teacher('runs/big')` gives it half of the loss and leaves half to the labels.

    temperature: divides both sides' logits; its square times the divergence keeps the gradient's size (Hinton et al.,
    section 2). Raises RecipeError for a run that cannot teach: incomplete, an ensemble, of separate networks or with a
    classical head.
    """

    def __init__(self, run: str, *, temperature: float = 1.0) -> None:
        need(0 < temperature < float("inf"), f"{KEY}: temperature", temperature, "a number above 0")
        self.run, self.temperature = Run.open(Path(run)), temperature
        self.run.need_complete()
        self.recipe = self.run.recipe
        if (self.run.path / ENSEMBLE).exists() or self.recipe.parts:
            raise RecipeError(f"{KEY}: {run} is several networks; name single runs: 0.5*teacher('a')+0.5*teacher('b')")

    @cached_property
    def folds(self) -> dict[str, int]:
        """Fold of every person the teacher knows; -1 for those that trained in all of them."""
        _, rows = read_rows(self.run.path / "split.csv", ("person", "fold"))
        return {row.get("person"): int(row.get("fold")) for row in rows}

    def need_fit(self, outputs: Outputs, kinds: dict[str, str], prepare: Prepare) -> None:
        """Raise RecipeError unless pupil and teacher see photos alike and have some output of the same form.

        outputs: what the pupil's head makes of any features; prepare: how it sees photos.
        """
        keys = self.recipe.prepare
        mine = Prepare(keys.crop, parse_size(keys.size), keys.interpolation, background=keys.background)
        if mine.geometry != prepare.geometry:
            raise RecipeError(
                f"{KEY}: {self.run.path} was trained on other pixels ({keys.crop}, {keys.size}, "
                f"{keys.interpolation}, {keys.background}); a teacher needs the same prepare.crop, size, "
                "interpolation and background"
            )
        head: Head = spec.build_one(self.recipe.model.head, HEADS, "model.head", 24)
        with torch.no_grad():
            lessons = head.eval().outputs(torch.zeros(2, 24))
        shared = [name for name in outputs if name in lessons]
        for name in shared:
            if lessons[name].shape[1:] != outputs[name].shape[1:] or head.kinds.get(name) != kinds.get(name):
                raise RecipeError(f"{KEY}: {self.run.path} has {name} in another form ({self.recipe.model.head})")
        if not shared:
            both = f"{', '.join(lessons)}; here: {', '.join(outputs)}"
            raise RecipeError(f"{KEY}: {self.run.path} has no output that is learnt here ({both})")

    def need_disjoint(self, persons: Iterable[str], fold: int) -> None:
        """Raise LeakError when one of `persons`, who validate `fold` here, has trained the teacher's fold."""
        for person in persons:
            if self.folds.get(person, fold) != fold:
                raise LeakError(
                    f"{KEY}: person {person!r} validates fold {fold} here and has trained fold {fold} of "
                    f"{self.run.path}; deal the same folds: data.folds={self.run.path}/split.csv"
                )


@dataclass(frozen=True)
class Lesson:
    """The networks that teach one fold, as (weight, temperature, network); the weights leave the rest to the labels."""

    teachers: Sequence[tuple[float, float, Net]]

    def loss(
        self, labels: Tensor, images: Tensor, outputs: Outputs, kinds: Mapping[str, str], losses: Losses
    ) -> Tensor:
        """`labels` (the loss by the labels) and the teachers' losses by their weights; images: what the pupil saw.

        An output weighs here what its losses by the labels weigh together (`loss.years: 0.03*l1`).
        """
        total = (1 - sum(weight for weight, _, _ in self.teachers)) * labels
        for weight, temperature, net in self.teachers:
            with torch.no_grad():
                lesson = net(images)
            parts = [
                sum(share for share, _ in losses[name])
                * divergence(kinds.get(name, "classes"), raw.float(), lesson[name].float(), temperature)
                for name, raw in outputs.items()
                if name in lesson
            ]
            total = total + weight * torch.stack(parts).sum()
        return total


def divergence(kind: str, raw: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """How far raw outputs [B, K] are from the teacher's [B, K], by the kind of output (see `losses`); batch mean.

    Classes: KL(teacher || pupil). Steps: binary cross-entropy less the teacher's entropy, mean over the steps, as
    `bce`. Years: the absolute difference.
    """
    if kind == "value":
        return (raw - taught).abs().mean()
    if kind == "classes":
        log_p, log_t = (raw / temperature).log_softmax(1), (taught / temperature).log_softmax(1)
        return temperature**2 * (log_t.exp() * (log_t - log_p)).sum(1).mean()
    soft = (taught / temperature).sigmoid()
    steps = nn.functional.binary_cross_entropy_with_logits(raw / temperature, soft, reduction="none")
    steps = steps - nn.functional.binary_cross_entropy(soft, soft, reduction="none")
    return temperature**2 * steps.mean(1).mean()


def make_teachers(text: str) -> list[tuple[float, Teacher]]:
    """(weight, teacher) of `train.distil`; none for `none`. Raises RecipeError when the weights exceed 1."""
    if text == "none":
        return []
    teachers = spec.build(text, TEACHERS, KEY)
    weights = [weight for weight, _ in teachers]
    if "|" in text or not 0 < sum(weights) <= 1 or min(weights) <= 0:
        raise RecipeError(f"{KEY}: {text!r}; expected weights above 0 with a sum of at most 1, 0.5*teacher('runs/big')")
    return teachers


def make_lesson(teachers: Sequence[tuple[float, Teacher]], fold: int, device: torch.device) -> Lesson | None:
    """The networks that teach a fold, each with its share of its teacher's weight; None without teachers.

    fold: -1 for the networks that teach the one of all people.
    """
    shares = []
    for weight, teacher in teachers:
        nets, _ = nets_of(teacher.run, teacher.recipe, fold if fold >= 0 else None)
        shares += [(weight / len(nets), teacher.temperature, net.requires_grad_(False).to(device)) for net in nets]
    return Lesson(shares) if shares else None


TEACHERS: spec.Table = {"teacher": Teacher}
