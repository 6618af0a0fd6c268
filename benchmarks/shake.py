"""The published gaps between public and private half against those that chance alone makes; and is `shake` right?

    python benchmarks/shake.py [RUN...]     # about a minute; RUN: complete runs on the same photos, told beside
                                            # (`phenomena.py gaps DATA` names those of docs/log.md, or trains them)
    python benchmarks/shake.py --schemes    # the tables in docs/evidence.md, and how often its chances come true

1. Quantiles of |public - private| as published (README files and reports of six editions of the contest; only pairs
   that are of one submission) beside those of simulated classifiers of the same macro F1 on 900 + 900 people.
2. Why the published gaps have a sign. They are of final submissions, chosen by their public score: the gap of the
   public winner among many submissions. And all teams were scored on the same halves: how far their gaps go together,
   and what the mean gap of all of them may be by chance.
3. `--schemes`: ways to draw a contest from P labelled people, against contests really drawn from 100,000.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from bootstrap import GROUPS, MASKS, as_predictions
from numpy.typing import NDArray

from threefold.evidence.metrics import COLUMNS, columns_of, person_counts
from threefold.evidence.shake import choose, draw_contests, informed
from threefold.predictions import Predictions
from threefold.runs import Run

PERSONS, HALF = 1800, 900
COLUMN = COLUMNS.index("all.macro_f1")
PUBLISHED = {  # macro F1 (public, private) of one submission, not a public `best` beside a final private
    "ed. 4 boostcampaitech4cv2 cv-09": (0.8000, 0.8007), "ed. 4 boostcampaitech4cv2 cv-05": (0.7811, 0.7729),
    "ed. 5 boostcampaitech5 cv-14": (0.7868, 0.7722), "ed. 4 boostcampaitech4cv1 cv-03": (0.7735, 0.7693),
    "ed. 1 README 29304488990": (0.7784, 0.7632),
    "ed. 1 iloveslowfood": (0.7706, 0.7604), "ed. 3 boostcampaitech3 cv-04": (0.7771, 0.7564),
    "ed. 1 bsm8734": (0.7716, 0.7541), "ed. 2 l-yohai": (0.766, 0.754), "ed. 1 README 26174926972": (0.7754, 0.7526),
    "ed. 1 p1-img-CoodingPenguin": (0.7625, 0.7506), "ed. 2 image-classification-level1-12": (0.763, 0.744),
    "ed. 5 boostcampaitech5 cv-02": (0.7556, 0.7411), "ed. 3 boostcampaitech3 cv-06": (0.7525, 0.7348),
    "ed. 1 p1-img-ebbunnim": (0.7528, 0.7333), "ed. 4 ganghe74 cv-01": (0.7337, 0.7290),
    "ed. 4 boostcampaitech4cv3 cv-16": (0.7488, 0.7229), "ed. 2 image-classification-level1-26": (0.729, 0.712),
}  # fmt: skip
SIX = ((0.729, 0.712), (0.723, 0.705), (0.718, 0.716), (0.715, 0.712), (0.712, 0.702), (0.712, 0.723))
"""Six submissions of one team of edition 2, the only list that was not chosen by its public score."""


def classifiers(people: int, skills: list[float], shared: float, seed: int) -> list[Predictions]:
    """Runs on the same people. `shared`: which part of the variance of a person's errors is the person's, not a run's.

    As benchmarks/bootstrap.py's classifier, but that people are hard for all runs alike: seven photos, errors in age
    and gender mostly a person's, in the mask a photo's. Skill 2.45 gives macro F1 of about 0.76.
    """
    rng = np.random.default_rng(seed)
    group = rng.choice(6, people, p=GROUPS)
    gender, age = group[:, None] // 3, group % 3
    masks = np.broadcast_to(MASKS, (people, 7))
    truth = (masks * 6 + gender * 3 + age[:, None]).ravel()
    of_person = rng.normal(size=(2, people, 1))
    found = []
    for skill in skills:
        own = rng.normal(size=(2, people, 1))
        look, slip = np.sqrt(shared) * of_person + np.sqrt(1 - shared) * own + 0.5 * rng.normal(size=(2, people, 7))
        seen = np.array([-1.2, 0.2, 1.2])[age][:, None] * skill + look
        said_age = (seen > -0.5 * skill).astype(int) + (seen > 0.8 * skill)
        said_gender = np.where(slip > 1.9, 1 - gender, gender)
        said_mask = np.where(rng.random((people, 7)) < 0.04, rng.integers(0, 3, (people, 7)), masks)
        found.append(as_predictions(truth, (said_mask * 6 + said_gender * 3 + said_age).ravel()))
    return found


def quantiles(name: str, gap: NDArray[np.float64], mean: str = "0") -> str:
    """A row of the table: name, quantiles of |public - private|, the mean of the gap (by chance 0), its spread."""
    half, most = np.quantile(abs(gap), [0.5, 0.9])
    return f"| {name} | {half:.4f} | {most:.4f} | {mean} | {gap.std():.4f} |"


def published(paths: Sequence[Path]) -> None:
    """Print the published gaps beside those of simulated classifiers and of runs, then where their sign comes from."""
    pairs = np.array(list(PUBLISHED.values()))
    gap, six = pairs[:, 0] - pairs[:, 1], np.subtract(*np.array(SIX).T)
    runs = [Run.open(path).predictions() for path in paths]
    positive = f"{gap.mean():+.4f} ({int((gap > 0).sum())} of {len(gap)} above 0)"
    print("| | median gap | 90 % | mean of public \N{MINUS SIGN} private | SD |\n|---|---|---|---|---|")
    print(quantiles(f"published, {len(gap)} pairs, public {pairs[:, 0].mean():.3f}", gap, positive))
    print(quantiles("one team's six submissions", six, f"{six.mean():+.4f}"))
    notes, chance = [], {}
    for skill, shared in ((2.2, 0.7), (2.45, 0.7), (2.8, 0.7), (2.45, 0.95)):
        found = draw_contests(classifiers(5400, [skill] * 20, shared, 1), persons=PERSONS, draws=2000)
        chance[skill, shared] = found.public - found.private
        worth = f"a simulated classifier of macro F1 {found.private.mean():.3f}"
        name = f"chance, {worth}, errors {shared:.0%} a person's"
        print(quantiles(name, chance[skill, shared].ravel()))
        notes.append(f"{name}: {together(chance[skill, shared])}")
    if runs:
        found = draw_contests(runs, persons=PERSONS)
        for path, one in zip(paths, (found.public - found.private).T, strict=True):
            print(quantiles(f"chance, {path.name}", one))
        if len(runs) > 1:
            notes.append(f"these runs: {together(found.public - found.private)}")
    notes.append(f"published gaps about their mean: SD {gap.std(ddof=1):.4f}")
    for note in (*notes, *compare(gap, chance[2.45, 0.7][:, 0]), *winners()):
        print(f"- {note}" if note != notes[0] else f"\n- {note}")


def together(gap: NDArray[np.float64]) -> str:
    """How far the gaps [D, R] of R teams scored on the same halves go together, and what the mean of all may be."""
    linked = np.corrcoef(gap, rowvar=False)[np.triu_indices(gap.shape[1], 1)]
    mean, about = gap.mean(1).std(), gap.std(1, ddof=1).mean()
    words = f"{gap.shape[1]} on the same halves, correlation {linked.mean():.2f}"
    return (
        f"{words} ({linked.min():.2f} to {linked.max():.2f}), SD of their mean {mean:.4f}, about their mean {about:.4f}"
    )


def compare(gap: NDArray[np.float64], chance: NDArray[np.float64]) -> list[str]:
    """Kolmogorov-Smirnov, as if the published gaps were independent, which they are not: all teams share the halves."""
    try:
        from scipy.stats import ks_2samp
    except ImportError:
        return ["scipy is not installed: no Kolmogorov-Smirnov test"]
    tests = {"|gap|": (abs(gap), abs(chance)), "gap": (gap, chance), "gap less its mean": (gap - gap.mean(), chance)}
    found = {words: ks_2samp(*both) for words, both in tests.items()}
    return [f"Kolmogorov-Smirnov of {words}: D {t.statistic:.2f}, p {t.pvalue:.3g}" for words, t in found.items()]


def winners() -> list[str]:
    """The gap of the public winner among many submissions that differ in skill by about as much as ablations do."""
    told = []
    for shared in (0.7, 0.9):
        for spread in (0.0, 0.15):
            skills = (2.45 + spread * np.random.default_rng(3).normal(size=100)).tolist()
            found = draw_contests(classifiers(2700, skills, shared, 2), persons=PERSONS, draws=1000)
            words = []
            for count in (1, 10, 40, 100):
                won = found.public[:, :count].argmax(1)
                gap = (found.public - found.private)[np.arange(len(won)), won]
                words.append(f"{count}: {gap.mean():+.4f} ({(gap > 0).mean():.0%} above 0)")
            told.append(f"public winner, SD of true scores {found.private.mean(0).std():.4f}, errors {shared:.0%} a "
                        f"person's; mean gap of the best of {', '.join(words)}")  # fmt: skip
    return told


def schemes(repeats: int) -> None:
    """Ways to draw, against contests drawn from a population that is known."""
    rng = np.random.default_rng(0)
    whole = People(classifiers(100_000, [2.6], 0.7, 5))
    gaps = np.array([np.subtract(*whole.contest(rng)) for _ in range(10_000)])
    print(f"true macro F1 {whole.worth.round(4)}, SD of the gap {gaps.std():.5f}")
    for people in (700, 2700):
        found = []
        for _ in range(repeats):
            (run,) = whole.sample(people, rng)
            mine = draw_contests([run], persons=PERSONS, draws=1000, seed=int(rng.integers(1 << 30)))
            rest = [others(run, which, rng).std() for which in ("one step", "dealt", "cut")]
            found.append([rest[0], (mine.public - mine.private).std(), *rest[1:]])
        ratio = np.array(found).mean(0) / gaps.std()
        print(f"{people} people: one step {ratio[0]:.3f}, two {ratio[1]:.3f}, dealt {ratio[2]:.3f}, cut {ratio[3]:.3f}")


def chances(repeats: int) -> None:
    """How often what is told comes true, for teams whose runs differ little, as ablations do, and much."""
    for spread in (0.02, 0.1, 0.3):
        rng = np.random.default_rng(1)
        whole = People(classifiers(30_000, (2.6 + spread * rng.normal(size=10)).tolist(), 0.7, 5))
        print(f"true scores {whole.worth.mean():.3f}, SD {whole.worth.std(ddof=1):.4f}")
        for people in (700, 2700):
            told = []
            for _ in range(repeats):
                chosen = rng.choice(10, 3, replace=False)
                runs = [whole.sample(people, rng, chosen), whole.contest(rng)[:, chosen]]
                mine = draw_contests(runs[0], persons=PERSONS, draws=1000, seed=int(rng.integers(1 << 30)))
                known = informed(mine, runs[1][0].tolist())
                for a, b in combinations(range(3), 2):
                    real = runs[1][1, a] - runs[1][1, b]
                    told.append([value for drawn in (mine.private, known) for value in judged(drawn, a, b, real)])
            table = np.array(told)
            for words, part in (("before", table[:, :3]), ("public known", table[:, 3:])):
                print(f"  {people} people, {words}: 90 % intervals hold {part[:, 0].mean():.1%}; {bins(part)}")


class People:
    """A population whose every person is known, as seen by M classifiers."""

    def __init__(self, runs: list[Predictions]) -> None:
        self.runs = runs
        self.sums = np.stack([person_counts(run).astype(np.float32) for run in runs], axis=1)
        self.rows = np.argsort(np.unique(runs[0].persons, return_inverse=True)[1], kind="stable").reshape(-1, 7)
        self.worth = columns_of(self.sums.sum(0, dtype=np.float64))[:, COLUMN]

    def contest(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """[2, M] public and private macro F1 of a real draw."""
        drawn = rng.integers(0, len(self.sums), (2, HALF))
        return np.asarray([columns_of(self.sums[half].sum(0).astype(np.float64))[:, COLUMN] for half in drawn])

    def sample(self, people: int, rng: np.random.Generator, runs: NDArray[np.int64] | None = None) -> list[Predictions]:
        """What the classifiers (default: all) say about so many people."""
        rows = self.rows[rng.choice(len(self.sums), people, replace=False)].ravel()
        return [self.runs[number].take(rows) for number in (range(len(self.runs)) if runs is None else runs)]


def judged(drawn: NDArray[np.float64], a: int, b: int, real: float) -> list[float]:
    """Whether the 90 % interval of the difference holds the real one; the chance told for the favourite; came true."""
    low, high = np.quantile(drawn[:, a] - drawn[:, b], [0.05, 0.95])
    pick = choose(drawn[:, [a, b]])
    return [low <= real <= high, pick["chance"], real > 0 if pick["pick"] == 0 else real < 0]


def bins(part: NDArray[np.float64]) -> str:
    words = []
    for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 1.01)):
        rows = (part[:, 1] >= low) & (part[:, 1] < high)
        if rows.any():
            words.append(f"told {part[rows, 1].mean():.2f} true {part[rows, 2].mean():.2f} ({rows.sum()})")
    return "; ".join(words)


def others(run: Predictions, which: str, rng: np.random.Generator, draws: int = 1000) -> NDArray[np.float64]:
    """[draws] gaps the other ways: independent halves of our people; our people dealt first; our people cut in two."""
    sums = person_counts(run)
    count = len(sums)
    if which == "one step":
        parts = [rng.multinomial(HALF, np.full(count, 1 / count), draws) for _ in range(2)]
    else:
        side = rng.permuted(np.tile(np.arange(count) % 2, (draws, 1)), axis=1) == 1
        parts = [side * 1, ~side * 1]
        if which == "dealt":
            parts = [rng.multinomial(HALF, part / part.sum(1, keepdims=True)) for part in parts]
    public, private = (columns_of(part.astype(np.float64) @ sums)[:, COLUMN] for part in parts)
    return np.asarray(public - private)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--schemes", action="store_true")
    parser.add_argument("--repeats", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.schemes:
        schemes(arguments.repeats)
        chances(4 * arguments.repeats)
    else:
        published(arguments.runs)
