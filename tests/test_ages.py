"""Age outputs against their definitions: bins counted in loops, papers' formulas by hand, scipy's normal."""

import numpy as np
import pytest
import torch
from helpers import every
from scipy.stats import norm
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.ages import AGES, Age, Coral, Regression
from threefold.learn.heads import HEADS
from threefold.learn.target import YEARS, Target, make_target
from threefold.spec import build_one

FEATURES = 6
STARTS11 = [0, 19, 20, 21, 25, 30, 49, 53, 56, 58, 60]


def age(text: str) -> Age:
    torch.manual_seed(0)
    part = build_one(text, AGES, "model.head", lambda size: nn.Linear(FEATURES, size))
    assert isinstance(part, Age)
    return part


def people(*years: float) -> Target:
    """One photo of each age; NaN: of nobody's age."""
    parts = np.full((len(years), 3), -1, dtype=np.int8)
    return make_target(parts, np.array(years, dtype=np.float32))


def every_year() -> Target:
    return people(*range(YEARS))


def bin_of(year: int, starts: list[int]) -> int:
    return max(number for number, start in enumerate(starts) if year >= start)


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("bins11", STARTS11),
        ("bins(starts=[0,30,45,60,75])", [0, 30, 45, 60, 75]),
        ("years61", list(range(61))),
        ("dldl(sigma=0.01,low=20,high=80)", [0, *range(21, 81)]),
    ],
)
def test_a_year_is_in_the_bin_that_a_loop_finds(text: str, starts: list[int]) -> None:
    value, weight = age(text).targets(every_year())["age"]
    assert value.argmax(1).tolist() == [bin_of(year, starts) for year in range(YEARS)]
    assert torch.allclose(value.amax(1), torch.ones(YEARS)) and weight.tolist() == [1] * YEARS


@pytest.mark.parametrize(
    ("text", "first", "cuts"),
    [
        ("bins11", STARTS11, (30, 60)),
        ("bins(starts=[0,5,30,60,61])", [0, 5, 30, 60, 61], (30, 60)),
        ("years61", range(61), (30, 60)),
        ("years61(cuts=[31,59])", range(61), (31, 59)),
        ("dldl(low=10,high=70)", range(10, 71), (30, 60)),
        ("dldl(low=10,high=70,cuts=[29,58])", range(10, 71), (29, 58)),
    ],
)
def test_groups_are_sums_of_bins_and_are_trained_by_the_scored_cuts(text: str, first: list[int], cuts: tuple) -> None:
    part = age(text)
    outputs = part.outputs(torch.randn(5, FEATURES) * 3)
    probabilities = outputs["age"].detach().softmax(1).numpy()

    def sums(young: int, old: int) -> np.ndarray:
        groups = np.zeros((5, 3))
        for number, year in enumerate(first):
            groups[:, int(year >= young) + int(year >= old)] += probabilities[:, number]
        return groups

    assert np.allclose(part.groups(outputs).detach(), sums(*cuts), atol=1e-6)
    assert np.allclose(outputs["age_group"].softmax(1).detach(), sums(30, 60), atol=1e-6)


def test_expectations_are_means_of_years() -> None:
    for text, first in (("years61", np.arange(61)), ("dldl(low=10,high=70)", np.arange(10, 71))):
        part = age(text)
        outputs = part.outputs(torch.randn(5, FEATURES) * 3)
        naive = (outputs["age"].detach().softmax(1).numpy() * first).sum(1)
        assert np.allclose(part.years(outputs).detach(), naive, atol=1e-4)
        if text != "years61":
            assert np.allclose(outputs["years"][:, 0].detach(), naive, atol=1e-4), "what the l1 loss sees"


def test_dldl_trains_on_a_normal_distribution_around_the_year_and_on_the_year() -> None:
    targets = age("dldl(sigma=2.5,low=5,high=95)").targets(people(37, 6, 110, np.nan))
    grid = np.arange(5, 96)
    for row, centre in ((0, 37), (1, 6), (2, 95)):  # years beyond the scale are its end; mass beyond it is given back
        density = norm.pdf(grid, centre, 2.5)
        assert np.allclose(targets["age"].value[row], density / density.sum(), atol=1e-7)
        assert targets["years"].value[row].item() == centre
    assert targets["age"].weight.tolist() == targets["years"].weight.tolist() == [1, 1, 1, 0]
    assert targets["age"].value[3].sum() == 0


@pytest.mark.parametrize("scale", [0.1, 2.0, 30.0])
def test_the_likeliest_group_of_a_regression_is_what_the_edges_say(scale: float) -> None:
    part = Regression(lambda size: nn.Identity(), scale=scale)
    years = torch.cat([torch.linspace(-50, 200, 1001), torch.tensor([29.49, 29.51, 59.49, 59.51])])
    years = years[(years - 29.5).abs().minimum((years - 59.5).abs()) > 5e-3]
    outputs = part.outputs(((years - 40) / 20)[:, None])
    groups = part.groups(outputs)
    assert torch.equal(groups.argmax(1), (years > 29.5).long() + (years > 59.5).long())
    assert torch.allclose(groups.sum(1), torch.ones(len(years))) and (groups >= 0).all()
    predicted = part.years(outputs)
    assert torch.allclose(predicted, years.clamp(0, 120), atol=1e-4)
    assert torch.allclose(groups[:, 1] / groups[:, 0], torch.exp((years - 29.5) / scale), rtol=1e-2) or scale < 5


def test_a_regression_is_trained_on_years_and_starts_near_the_middle_of_the_people() -> None:
    part = age("regression")
    assert part.targets(people(25, 63))["years"].value.tolist() == [[25], [63]]
    assert 25 < part.years(part.outputs(torch.randn(200, FEATURES))).mean() < 55


def test_coral_is_one_score_and_shared_weights() -> None:
    """P(age >= start k) = sigmoid(w x + b_k), eq. 1-3 of the paper; groups and years are its differences and sums."""
    part = age("coral(starts=[0,20,30,45,60])")
    assert isinstance(part, Coral)
    features = torch.randn(7, FEATURES)
    score = features @ part.classifier.weight[0] + part.classifier.bias
    reach = torch.stack([torch.sigmoid(score + bias) for bias in part.biases], 1).detach()
    outputs = part.outputs(features)
    assert torch.allclose(outputs["age"].sigmoid(), reach, atol=1e-6)
    by_hand = torch.stack([1 - reach[:, 1], reach[:, 1] - reach[:, 3], reach[:, 3]], 1)
    assert torch.allclose(part.groups(outputs), by_hand, atol=1e-5)
    bins = torch.cat([1 - reach[:, :1], reach[:, :-1] - reach[:, 1:], reach[:, -1:]], 1)
    assert torch.allclose(part.years(outputs), bins @ torch.tensor([19.0, 20, 30, 45, 60]), atol=1e-3)


def test_coral_with_biases_out_of_order_is_still_a_distribution() -> None:
    part = age("coral(starts=[0,20,30,45,60])")
    assert isinstance(part, Coral)
    with torch.no_grad():
        part.biases.copy_(torch.tensor([1.0, -2.0, 0.5, 2.0]))  # 60 is reached more often than 30
    outputs = part.outputs(torch.randn(7, FEATURES))
    reach = outputs["age"].sigmoid().cummin(1).values
    groups = part.groups(outputs)
    assert torch.allclose(groups, torch.stack([1 - reach[:, 1], 0 * reach[:, 1], reach[:, 3]], 1), atol=1e-5)
    assert torch.isfinite(outputs["age_group"]).all()
    assert torch.allclose(part.years(outputs), 19 + reach @ torch.tensor([1.0, 10, 15, 15]), atol=1e-3)


def test_steps_are_trained_on_the_starts_a_year_has_reached() -> None:
    value = age("coral").targets(people(18, 19, 45, 99))["age"].value
    assert value.tolist() == [[float(year >= start) for start in range(19, 61)] for year in (18, 19, 45, 99)]
    assert age("coral").targets(people(np.nan))["age"].weight.tolist() == [0]


@pytest.mark.parametrize("text", [text for text in every(AGES) if "age_group" in age(text).kinds])
def test_only_photos_without_a_year_train_the_groups(text: str) -> None:
    """Whatever the training cuts: at 58 "old from 58" says old, the bins say 58-59, and both must not be trained."""
    parts = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, -1]], dtype=np.int8)
    target = make_target(parts, np.array([58, np.nan, np.nan], dtype=np.float32), cuts=(30, 58))
    value, weight = age(text).targets(target)["age_group"]
    assert value.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]] and weight.tolist() == [0, 1, 0]


def test_groups_follow_the_training_cuts() -> None:
    target = make_target(np.array([[-1, 0, 1]], dtype=np.int8), np.array([58], dtype=np.float32), cuts=(30, 58))
    assert age("groups").targets(target)["age"].value.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("name", every(AGES))
def test_a_checkpoint_holds_what_is_learned_and_nothing_else(name: str) -> None:
    part = age(name)
    assert part.state_dict().keys() == dict(part.named_parameters()).keys()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bins(starts=[0,25,60])", r"starts=\[0, 25, 60\]; .* 30 and 60"),
        ("bins(starts=[0,30,59])", "30 and 60"),
        ("bins(starts=[1,30,60])", "from 0"),
        ("bins(starts=[0,60,30])", "rising"),
        ("bins(starts=[0,30,30,60])", "rising"),
        ("bins(starts=[0,30,60,121])", "at most 120"),
        ("bins(starts=[])", "rising"),
        ("bins(starts=[0,30.5,60])", "starts"),
        ("coral(starts=[0,31,60])", "30 and 60"),
        ("years61(cuts=[31])", r"cuts=\[31\]; expected two rising"),
        ("years61(cuts=[59,31])", "rising"),
        ("years61(cuts=[30,61])", "up to 60"),
        ("dldl(cuts=[0,60])", "after 0"),
        ("dldl(sigma=0)", "sigma=0"),
        ("dldl(low=30)", "low=30"),
        ("dldl(high=59)", "high=59"),
        ("dldl(high=121)", "high=121"),
        ("regression(scale=0)", "scale=0"),
        ("bins12", "nearest: bins11"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        build_one(f"multi(age={text})", HEADS, "model.head", FEATURES)
    assert str(error.value).startswith("model.head: ") and "\n" not in str(error.value)
