"""Confidence of the mean of several networks, without labels: the temperature found is the one labels would give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_backend import FakeBackend
from fake_run import simulate, write_run
from helpers import contest
from numpy.typing import NDArray
from test_calibrate import nll

from threefold import labels
from threefold.errors import DataError, LeakError, RunError
from threefold.evidence.calibrate import fit_mean_temperature, fit_temperature, temper
from threefold.evidence.decide import Decision, for_mean
from threefold.export.export import of_one
from threefold.files import write_csv, write_json
from threefold.pages import decide_page as stage
from threefold.pages.decide_page import decide
from threefold.photos.prepare import Prepare
from threefold.predictions import product
from threefold.read.backends import Answer, averaged_folds, oof_digest
from threefold.runs import Run

Floats = NDArray[np.floating]


def networks(own: float, count: int = 5, photos: int = 4000, over: float = 1.5) -> tuple[Floats, NDArray[np.int64]]:
    """[M, N, 3] of networks that see a shared noisy signal, each with noise of its `own`, `over` times too sure."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, photos)
    signal = np.eye(3)[truth] * 1.5 + rng.normal(0, 1, (photos, 3))
    logits = signal + rng.normal(0, own, (count, photos, 3))
    powers = np.exp(over * logits)
    return powers / powers.sum(-1, keepdims=True), truth


@pytest.mark.parametrize("own", [0.3, 0.7, 1.0, 1.5])
def test_the_temperature_of_the_mean_is_what_labels_would_say(own: float) -> None:
    each, truth = networks(own)
    single = fit_temperature(np.concatenate(each), np.tile(truth, len(each)))
    mean, calibrated = each.mean(0), np.stack([temper(one, single) for one in each])
    found, best = fit_mean_temperature(mean, calibrated), fit_temperature(mean, truth)
    assert found == pytest.approx(best, rel=0.08 if own <= 1 else 0.2) and found < single
    costs = [nll(temper(mean, temperature), truth) for temperature in (best, found, single)]
    assert costs[1] - costs[0] < 0.05 * (costs[2] - costs[0]), "nearly all that the single networks' temperature costs"


def test_networks_that_agree_leave_the_temperature_as_it_is() -> None:
    one = networks(0.5, count=1)[0]
    assert fit_mean_temperature(one[0], temper(one[0], 1.7)[None]) == pytest.approx(1.7, rel=1e-6)
    assert fit_mean_temperature(np.zeros((0, 3)), np.zeros((2, 0, 3))) == 1


def joint(own: float, photos: int = 500) -> Floats:
    """[M, N, 18]: the mask as in `networks`, gender and age by the same signal."""
    parts, rng = networks(own, photos=photos)[0], np.random.default_rng(1)
    gender = rng.dirichlet([1, 1], parts.shape[:2])
    return np.stack(
        [product({"mask": m, "gender": g, "age_group": m[:, ::-1]}) for m, g in zip(parts, gender, strict=True)]
    )


def test_a_decision_keeps_its_borders_in_calibrated_share() -> None:
    members = joint(1.0)
    offsets = tuple(0.8 * (code % 3 == 2) - 0.4 * (code // 6 == 1) for code in range(18))
    single = Decision(
        {"mask": 1.5, "gender": 1.0, "age_group": 2.5},
        offsets,
        (30.0, 58.0),
        {"mask": 0.9, "gender": 0, "age_group": 0},
    )
    found = for_mean(single, members, members.mean(0))
    assert all(found.temperature[name] < single.temperature[name] for name in labels.ATTRIBUTES)
    assert found.words() == single.words(), "said from the same shares on"
    assert found.offsets != single.offsets and (found.years_cuts, found.abstain) == (single.years_cuts, single.abstain)
    single = Decision(offsets=tuple(0.1 * (code == 7) for code in range(18)))
    moved = for_mean(single, members, members.mean(0)).offsets
    assert 0 < moved[7] < 0.1 and moved[1] == 0, "what only a class has, by the mean of all"


def test_coverage_is_of_the_mean() -> None:
    members = joint(1.0)
    found = for_mean(Decision(), members, members.mean(0), coverage=0.9)
    silent = found.apply(members.mean(0)).indeterminate.mean(0)
    assert silent == pytest.approx([0.1, 0.1, 0.1], abs=0.005)
    with pytest.raises(DataError, match=r"members \(5, 500, 18\), mean \(500, 3\)"):
        for_mean(Decision(), members, members.mean(0)[:, :3])


class Drifting(FakeBackend):
    """A network that is off by its number: the mean of several is less sure than each."""

    def __init__(self, shift: tuple[int, ...]) -> None:
        super().__init__(Prepare(size=(16, 12)))
        self.shift = shift

    def __call__(self, photos: tuple[NDArray[np.uint8], ...]) -> Answer:
        code = super().__call__(photos)[0].argmax(1)
        return np.mean([np.eye(18)[(code + off) % 18] * 0.82 + 0.01 for off in self.shift], axis=0), None


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Two folds whose networks differ, and photos.csv of two people that trained."""
    monkeypatch.setattr(stage, "open_run", lambda path, fold=None: Drifting((0, 1) if fold is None else (fold,)))
    data, made = contest(tmp_path / "data", people=2, eval_people=6), write_run(tmp_path / "run", simulate(40, 2))
    rows = [(file.name + str(n), str(file), "p") for n, file in enumerate(sorted((data / "train").rglob("*.jpg")))]
    write_csv(made.path / "photos.csv", [("photo", "path", "person"), *rows])
    for fold in (0, 1):
        (made.path / f"fold{fold}").mkdir(exist_ok=True)
    yield made


def test_decide_says_that_the_mean_is_another_thing_and_fits_it(run: Run, tmp_path: Path) -> None:
    result = decide(run.path, rule="none")
    plain = result.data()
    assert "! predict reads with the mean of 2 networks" in str(result)
    assert (plain["networks"], plain["unlabelled"], plain["single"]) == (2, 0, None)
    result = decide(run.path, rule="none", unlabelled=tmp_path / "data/eval")
    document = result.data()
    assert (document["single"], document["unlabelled"]) == (plain["decision"], 42)
    assert document["review"] == plain["review"]
    assert document["decision"]["temperature"]["age_group"] < plain["decision"]["temperature"]["age_group"]
    assert "saved for the mean of 2 networks, by 42 photos without labels" in str(result)
    assert decide(run.path, rule="none", unlabelled=tmp_path / "data/eval").data() == document
    assert (run.path / "decision.json").read_text() == result.json()


def test_photos_for_the_mean_must_be_of_others_and_there_must_be_a_mean(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LeakError, match=r"normal\.jpg is .* of .*photos\.csv, which the run was made from"):
        decide(run.path, unlabelled=next((tmp_path / "data/train").rglob("normal.jpg")))
    with pytest.raises(DataError, match="nowhere"):
        decide(run.path, unlabelled=tmp_path / "nowhere")
    (run.path / "final").mkdir()
    with pytest.raises(RunError, match="it reads with one network"):
        decide(run.path, unlabelled=tmp_path / "data/eval")
    assert not (run.path / "decision.json").exists()


def test_which_networks_are_averaged(run: Run, tmp_path: Path) -> None:
    assert averaged_folds(run) == [0, 1]
    joined = write_run(tmp_path / "joined", simulate(40, 2))
    members = [{"path": "../run", "weight": 1.0, "digest": oof_digest(run)}]
    write_json(joined.path / "ensemble.json", {"members": members, "vote": "soft"})
    assert averaged_folds(joined) == [0, 1]
    (run.path / "final").mkdir()
    assert averaged_folds(run) == averaged_folds(joined) == []


def test_a_network_exported_alone_gets_the_decision_of_single_networks(run: Run, tmp_path: Path) -> None:
    document = decide(run.path, rule="none", unlabelled=tmp_path / "data/eval").data()
    mean, single = Decision.from_dict(document["decision"]), Decision.from_dict(document["single"])
    assert of_one(run, mean) == single != mean
    decide(run.path, rule="none")
    assert of_one(run, single) == single
    write_json(run.path / "decision.json", {**document, "single": None, "on": "test"})
    assert of_one(run, mean) is None
    (run.path / "final").mkdir()
    assert of_one(run, mean) == mean, "it reads with one network: the scored photos were that one's"
