"""Ensembles: votes against loops, agreement against scikit-learn, honest weights, and readers made of several runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_backend import FakeBackend
from fake_run import simulate, write_run
from helpers import TINY, square
from safetensors.torch import save_file
from sklearn.metrics import cohen_kappa_score, f1_score, matthews_corrcoef

from threefold import labels
from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.ensemble import combine, cross_fit, disagreement, join_votes, mean_years
from threefold.files import write_json
from threefold.learn.net import make_net
from threefold.pages.report import report
from threefold.pages.runs_page import runs_table
from threefold.photos.prepare import Prepare
from threefold.predictions import Predictions
from threefold.read.backends import JoinedBackend, open_run
from threefold.read.reader import Reader
from threefold.recipe import make_recipe
from threefold.runs import Run
from threefold.train.join import ensemble

TEXTS = dict(text.split("=", 1) for text in TINY)


def noisy(base, amount, seed):
    """A member: the probabilities of `base` disturbed by noise of its own."""
    rng = np.random.default_rng(seed)
    joint = np.exp(np.log(base.probabilities + 1e-9) + rng.normal(0, amount, base.probabilities.shape))
    return replace(base, probabilities=(joint / joint.sum(1, keepdims=True)).astype(np.float32))


def fitted_weights(parts, vote="soft", **options):
    """The weights that are fitted on everybody."""
    return cross_fit(parts, vote, **options)[1]


def macro(truth, joint):
    return f1_score(truth, joint.argmax(1), labels=range(18), average="macro", zero_division=0)


@pytest.fixture(scope="module")
def parts():
    base = simulate(60, 3, seed=5)
    return [noisy(base, amount, seed) for seed, amount in enumerate((1, 2, 3, 2))]


def test_soft_is_the_mean_and_hard_counts_votes(parts):
    weights = [0.2, 0.4, 0.4, 0.2]
    soft, hard = join_votes(parts, weights), join_votes(parts, weights, "hard")
    mean = sum(weight * part.probabilities.astype(float) for weight, part in zip(weights, parts, strict=True)) / 1.2
    np.testing.assert_allclose(soft.probabilities, mean, atol=1e-6)
    for row in range(0, len(soft), 7):
        votes = np.zeros(18)
        mean = np.zeros(18)
        for part, weight in zip(parts, weights, strict=True):
            votes[part.probabilities[row].argmax()] += weight / 1.2
            mean += part.probabilities[row] * weight / 1.2
        most = np.flatnonzero(votes > votes.max() - 1e-9)
        assert hard.predicted[row] == max(most, key=mean.__getitem__)
        np.testing.assert_allclose(hard.probabilities[row], votes, atol=2e-3)
    shuffled = [part.take(np.random.default_rng(n).permutation(len(part))) for n, part in enumerate(parts)]
    again = join_votes([parts[0], *shuffled[1:]], weights, "hard")
    np.testing.assert_array_equal(again.probabilities, hard.probabilities)


def test_a_tie_of_votes_goes_to_the_larger_mean():
    joint = np.full((2, 1, 18), 0.01)
    joint[0, 0, 4], joint[1, 0, 9] = 0.5, 0.7
    for order in (joint, joint[::-1]):
        assert combine(order / order.sum(2, keepdims=True), [1, 1], "hard").argmax() == 9
        assert combine(order / order.sum(2, keepdims=True), [1, 1.01], "hard").argmax() == order[1, 0].argmax()


def test_marginals_take_each_attribute_from_its_member(parts):
    joint = combine(np.stack([part.probabilities for part in parts[:3]]), None, "marginals")
    marginals = [labels.marginals(part.probabilities) for part in parts]
    for code in range(18):
        mask, gender, group = labels.decode(code)
        product = (
            marginals[0]["mask"][:, mask] * marginals[1]["gender"][:, gender] * marginals[2]["age_group"][:, group]
        )
        np.testing.assert_allclose(joint[:, code], product, atol=1e-5)


def test_years_are_of_those_who_have_them():
    years = mean_years(np.array([[20.0, np.nan, np.nan], [40.0, 50.0, np.nan]]), [3, 1])
    np.testing.assert_allclose(years, [25, 50, np.nan])


def test_fitted_weights_are_the_best_bag_of_a_naive_search(parts):
    """The greedy selection again, with scikit-learn's score and lists."""
    bag, scores = [], []
    for _ in range(30):
        tried = [macro(parts[0].label, sum(parts[m].probabilities.astype(float) for m in [*bag, n])) for n in range(4)]
        bag.append(min(range(4), key=lambda n: (-tried[n], bag.count(n))))
        scores.append(max(tried))
    size = max(n for n, score in enumerate(scores, start=1) if score >= max(scores) - 1e-12)
    weights = fitted_weights(parts)
    np.testing.assert_allclose(weights, np.bincount(bag[:size], minlength=4) / size, atol=1e-9)
    fitted = macro(parts[0].label, join_votes(parts, weights).probabilities)
    assert fitted >= max(macro(part.label, part.probabilities) for part in parts)
    assert fitted_weights([parts[0], parts[0]]).tolist() == [0.5, 0.5], "what makes no difference is kept even"


def test_what_is_held_out_has_no_say(parts):
    """Turning the truth of a fold upside down changes nothing of how that fold is voted on."""
    joined, _ = cross_fit(parts, members=3)
    held = parts[0].fold == 1
    lie = [replace(part, truth=np.where(held[:, None], 0, part.truth).astype(np.int8)) for part in parts]
    other, weights = cross_fit(lie, members=3)
    np.testing.assert_array_equal(joined.probabilities[held], other.probabilities[held])
    outside = [part.take(~held) for part in parts]
    expected = join_votes(parts, fitted_weights(outside, members=3)).probabilities[held]
    np.testing.assert_allclose(joined.probabilities[held], expected, atol=1e-6)
    assert (weights > 0).sum() <= 3 and weights.sum() == pytest.approx(1)


def test_the_fit_flatters_and_the_cross_fit_does_not():
    """Twelve members that know nothing: fitted weights score above chance on what they were fitted on."""
    base = simulate(80, 1, seed=3)
    rng = np.random.default_rng(0)
    parts = [replace(base, probabilities=rng.dirichlet(np.ones(18), len(base)).astype(np.float32)) for _ in range(12)]
    joined, weights = cross_fit(parts, seed=1)
    fitted = macro(base.label, join_votes(parts, weights).probabilities)
    assert fitted > macro(base.label, joined.probabilities) + 0.02
    again = cross_fit(parts, seed=1)[0]
    np.testing.assert_array_equal(joined.probabilities, again.probabilities)


def test_members_are_chosen_for_what_they_add():
    """The second best alone is a copy of the best; a weaker one that errs elsewhere is taken instead."""
    base = simulate(60, 3, seed=5)
    strong = noisy(base, 1, 0)
    other = noisy(base, 1.5, 1)
    copy = replace(strong, years=strong.years + 1)
    scores = [macro(base.label, part.probabilities) for part in (copy, other, strong)]
    assert scores[0] == scores[2] > scores[1]
    weights = fitted_weights([copy, other, strong], members=2, weigh=False)
    assert weights.tolist() == [0.5, 0.5, 0]
    assert (fitted_weights([copy, other, strong], "hard", members=3, weigh=False) > 0).all()


def test_sets_without_all_labels_are_fitted_by_their_attributes():
    base = simulate(40, 2, known=(True, True, False))
    parts = [noisy(base, amount, seed) for seed, amount in enumerate((0.5, 4))]
    assert fitted_weights(parts)[0] > 0.5
    nothing = [replace(part, truth=np.full_like(part.truth, labels.UNKNOWN)) for part in parts]
    with pytest.raises(DataError, match="no photo has a label"):
        fitted_weights(nothing)


def test_agreement_is_scikit_learns(parts):
    truth = parts[0].truth.copy()
    truth[:50, 2] = labels.UNKNOWN
    parts = [replace(part, truth=truth) for part in parts[:3]]
    rows = disagreement(parts, ["a", "b", "c"])
    assert [(row["one"], row["other"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    one, other = parts[0].predicted, parts[2].predicted
    wrong = [(classes != parts[0].label)[50:] for classes in (one, other)]
    assert rows[1]["disagreement"] == pytest.approx((one != other).mean())
    assert rows[1]["kappa"] == pytest.approx(cohen_kappa_score(one, other))
    assert rows[1]["error_correlation"] == pytest.approx(matthews_corrcoef(*wrong))
    right = replace(parts[0], probabilities=np.eye(18, dtype=np.float32)[np.maximum(parts[0].label, 0)])
    assert disagreement([right, parts[1]], ["a", "b"])[0]["error_correlation"] is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda part: part.take(np.arange(5, len(part))), r"member 2: lacks 5 of the photos of member 1"),
        (lambda part: replace(part, persons=np.roll(part.persons, 1)), "member 2: person of 'train/000000_asian/0"),
        (lambda part: replace(part, truth=1 - part.truth.clip(0, 1)), r"member 2: truth of .* in member 1 .* 'worn "),
    ],
)  # fmt: skip
def test_other_photos_persons_and_labels_are_refused(parts, change, match):
    with pytest.raises(DataError, match=match):
        join_votes([parts[0], change(parts[1])], None)


@pytest.fixture
def runs(tmp_path, parts):
    for name, part in zip("abc", parts, strict=False):
        write_run(tmp_path / name, part, hypothesis=name)
    return [tmp_path / name for name in "abc"]


def test_the_run_made_is_whole(runs, parts, tmp_path):
    done = ensemble(runs, out=tmp_path / "joined", weights="0.2,0.4,0.4")
    expected = join_votes(parts[:3], [0.2, 0.4, 0.4])
    oof = Predictions.load(done.path / "oof.npz")
    np.testing.assert_array_equal(oof.probabilities, expected.probabilities)
    about = done.metrics["ensemble"]
    assert done.state == "complete" and about["weights"] == [0.2, 0.4, 0.4] and not about["fitted"]
    assert done.metrics["macro_f1"]["value"] == pytest.approx(macro(oof.label, oof.probabilities))
    assert [row["path"] for row in done.read("ensemble.json")["members"]] == ["../a", "../b", "../c"]
    page = report(done.path, photos=False).page()
    assert "soft vote of" in page and "Members of the vote" in page and "Nothing was fitted." in page
    rows = {row.name: row for row in runs_table(tmp_path)}
    assert rows["joined"].group == rows["a"].group and rows["joined"].state == "complete"
    with pytest.raises(RunError, match="already there"):
        ensemble(runs, out=tmp_path / "joined")


def test_a_fitted_run_reports_the_cross_fit(runs, parts, tmp_path):
    done = ensemble(runs, out=tmp_path / "fit", weights="fit", members=2, vote="hard")
    joined, weights = cross_fit(parts[:3], "hard", members=2)
    np.testing.assert_array_equal(Predictions.load(done.path / "oof.npz").probabilities, joined.probabilities)
    about = done.metrics["ensemble"]
    assert about["fitted"] and about["vote"] == "hard" and about["weights"] == pytest.approx(weights.tolist(), abs=1e-6)
    assert len(done.read("ensemble.json")["members"]) == (weights > 0).sum() <= 2
    assert "the score above is that of the cross-fit" in report(done.path, photos=False).page()


@pytest.mark.parametrize(
    ("names", "options", "match"),
    [
        ("a", {}, "expected 2 runs or more, not 1"),
        ("aa", {}, "is given twice"),
        ("ax", {}, "x: no such run"),
        ("ah", {}, "h: run is stopped, not complete"),
        ("ab", {"weights": [1, 2, 3]}, r"weights: \[1.0, 2.0, 3.0\] for 2 models"),
        ("ab", {"weights": "1,-1"}, r"weights: \[1.0, -1.0\] for 2 models; expected one each, 0 or more"),
        ("ab", {"weights": "half"}, "weights: 'half' cannot be read"),
        ("ab", {"members": 3}, r"members: 3 of 2 runs; expected 2..2"),
        ("ab", {"members": 2, "weights": [1, 1]}, "no weights but `fit`"),
        ("ab", {"vote": "sofd"}, "vote: 'sofd' is not known .*nearest: soft"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(runs, tmp_path, parts, names, options, match):
    write_run(tmp_path / "h", parts[0], complete=False)
    with pytest.raises((RunError, RecipeError), match=match) as error:
        ensemble([tmp_path / name for name in names], out=tmp_path / "out", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def make_weights(run, place, recipe, seed):
    """A network with random weights where `train` would have left one."""
    torch.manual_seed(seed)
    prepare = Prepare(size=recipe.prepare.size)
    save = run.path / place
    save.mkdir(parents=True)
    net = make_net(recipe, prepare, pretrained=False)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, save / "best.safetensors")
    write_json(save / "prepare.json", prepare.to_dict())


@pytest.fixture
def photos(tmp_path):
    for n in range(7):
        square(n, n % 3, n % 2, 0, 0).save(tmp_path / f"{n}.png")
    return [tmp_path / f"{n}.png" for n in range(7)]


def read(reader, photos):
    return np.stack([reading.joint for reading in reader.read(photos)])


def test_an_ensemble_of_runs_reads_photos_each_in_its_own_size(tmp_path, parts, photos):
    for seed, (name, size) in enumerate({"a": "32x24", "b": "48x40", "c": "32x24"}.items()):
        text = {**TEXTS, "prepare.size": size}
        run = write_run(tmp_path / name, parts[seed], recipe=text)
        for fold in range(2):
            make_weights(run, f"fold{fold}", make_recipe(text), 10 * seed + fold)
    done = ensemble([tmp_path / name for name in "abc"], out=tmp_path / "joined", weights=[1, 2, 1])
    backend = open_run(done.path)
    assert [prepare.size for prepare in backend.prepares] == [(32, 24), (48, 40)], "equal geometries are prepared once"
    single = [read(Reader(open_run(tmp_path / name)), photos) for name in "abc"]
    assert not np.allclose(single[0], single[1], atol=1e-4)
    expected = (single[0] + 2 * single[1] + single[2]) / 4
    np.testing.assert_allclose(read(Reader(backend, batch=3), photos), expected, atol=1e-6)
    again = ensemble([done.path, tmp_path / "a"], out=tmp_path / "more" / "nested", vote="hard")
    hard = combine(np.stack([expected, single[0]]), None, "hard")
    np.testing.assert_allclose(read(Reader(open_run(again.path)), photos), hard, atol=1e-6)
    shutil.copyfile(tmp_path / "b/oof.npz", tmp_path / "a/oof.npz")
    with pytest.raises(RunError, match="another run than the one that was joined"):
        open_run(done.path)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(RunError, match=r"joined: its member .*a is gone"):
        open_run(done.path)
    (done.path / "ensemble.json").write_text(json.dumps({"members": [{}]}))
    with pytest.raises(RunError, match=r"ensemble\.json: is not what an ensemble writes"):
        open_run(done.path)


def test_separate_networks_are_joined_by_their_attribute(tmp_path, parts, photos):
    text = {**TEXTS, "parts.age.prepare.size": "40x32"}
    run = write_run(tmp_path / "run", parts[0], recipe=text)
    recipe = make_recipe(text)
    for seed, part in enumerate(("mask", "gender", "age")):
        for fold in range(2):
            make_weights(run, f"fold{fold}/{part}", recipe.part(part), 10 * seed + fold)
    reader = Reader(open_run(run.path))
    members = [read(Reader(member), photos) for member in reader.backend.members]
    marginals, names = labels.marginals(read(reader, photos)), dict(zip(labels.ATTRIBUTES, members, strict=True))
    for name, joint in names.items():
        np.testing.assert_allclose(marginals[name], labels.marginals(joint)[name], atol=1e-5)
    assert [member.prepares[0].size for member in reader.backend.members] == [(32, 24), (32, 24), (40, 32)]
    shutil.rmtree(run.path / "fold0/gender")
    shutil.rmtree(run.path / "fold1/gender")
    with pytest.raises(RunError, match=r"holds no weights .*gender/best"):
        open_run(run.path)


class Aged(FakeBackend):
    """Says an age as well."""

    def __init__(self, age, size):
        super().__init__(Prepare(size=size))
        self.age = age

    def __call__(self, photos):
        assert photos[0].shape[1:3] == self.prepares[0].size
        return super().__call__(photos)[0], np.full(len(photos[0]), self.age, np.float32)


def test_joined_years_and_a_wrong_rule(photos):
    plain, young, old = FakeBackend(Prepare(size=(8, 8))), Aged(20, (16, 8)), Aged(60, (8, 16))
    assert Reader(JoinedBackend([plain, young, old], [5, 3, 1]))(photos[0]).age == pytest.approx(30)
    assert Reader(JoinedBackend([young, plain, old], rule="marginals"))(photos[0]).age == pytest.approx(60)
    assert Reader(JoinedBackend([young, old, plain], rule="marginals"))(photos[0]).age is None
    assert Reader(JoinedBackend([plain, plain]))(photos[0]).age is None
    with pytest.raises(RecipeError, match="vote: 'mean' is not known"):
        JoinedBackend([plain], rule="mean")
    with pytest.raises(RecipeError, match="for 2 models"):
        JoinedBackend([plain, young], [1])


def test_a_run_that_validated_nobody_cannot_be_joined(runs, tmp_path):
    write_json(tmp_path / "a/metrics.json", {"photos": 0, "macro_f1": None})
    with pytest.raises(RunError, match="no out-of-fold predictions"):
        ensemble(runs, out=tmp_path / "out")
    assert Run.open(runs[1]).state == "complete"
