"""The contract of losses for every row and every kind of output, and each against an independent definition."""

import math
from dataclasses import dataclass

import pytest
import torch
from helpers import every
from sklearn.metrics import f1_score
from torch.nn import functional as F  # noqa: N812

from threefold.errors import RecipeError
from threefold.learn.losses import GROUPS, LOSSES, Focal, Loss
from threefold.spec import build_one

COUNTS = torch.tensor([60.0, 30.0, 10.0])
SPECS = [
    *every(LOSSES),
    "ce(weight=inverse)",
    "ce(weight=[1,2,3], smoothing=0.1)",
    "focal(gamma=0.5, weight=inverse)",
    "class_balanced(beta=0.9, gamma=2)",
    "merged_ce(groups=[2,1], weight=[1,3])",
    "merged_ce(merge=minmax)",
    "sce(alpha=6, beta=0.1)",
    "bce(weight=[1,2,3])",
]


def loss(text: str, counts: torch.Tensor = COUNTS) -> Loss:
    function: Loss = build_one(text, LOSSES, "loss.default", counts)
    return function


def soft(count: int = 16, classes: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(count, classes).softmax(1)


@dataclass
class Case:
    """A loss and one kind of output it serves, with three raw numbers per photo (a value has one)."""

    loss: Loss
    kind: str

    @property
    def width(self) -> int:
        return 1 if self.kind == "value" else 3

    def target(self, count: int = 16) -> torch.Tensor:
        """Soft targets."""
        if self.kind == "value":
            return torch.linspace(18, 60, count)[:, None]
        return soft(count) if self.kind == "classes" else soft(count, 4).flip(1).cumsum(1).flip(1)[:, 1:]

    def sure(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Targets of three photos, raw outputs that say just that, and raw outputs that say otherwise."""
        target = {
            "classes": torch.eye(3),
            "steps": torch.ones(3, 3).tril(),
            "value": torch.tensor([[18.0], [40], [60]]),
        }
        right = target[self.kind] if self.kind == "value" else 8 * (2 * target[self.kind] - 1)
        return target[self.kind], right, right.roll(1, 0)


@pytest.fixture(params=[(text, kind) for text in SPECS for kind in sorted(getattr(loss(text), "kinds", {"classes"}))])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(loss(request.param[0]), request.param[1])


def test_every_kind_of_output_has_losses() -> None:
    assert set().union(*(getattr(row, "kinds", {"classes"}) for row in LOSSES.values())) == {
        "classes",
        "steps",
        "value",
    }


def test_scalar_finite_and_never_negative(case: Case) -> None:
    for scale in (0.0, 1.0, 60.0):
        raw = (torch.randn(16, case.width) * scale).requires_grad_()
        value = case.loss(raw, case.target(), torch.ones(16))
        value.backward()
        assert value.shape == () and value >= 0 and torch.isfinite(value)
        assert raw.grad is not None and torch.isfinite(raw.grad).all() and raw.grad.abs().max() < 1e3


def test_weight_nought_is_as_if_the_photo_were_not_looked_at(case: Case) -> None:
    raw = torch.randn(4, case.width, requires_grad=True)
    weight = torch.tensor([1.0, 0.0, 1.0, 0.0])
    target = case.target(4) * weight[:, None]  # what is unknown has no mass
    value = case.loss(raw, target, weight)
    value.backward()
    assert raw.grad is not None and (raw.grad[[1, 3]] == 0).all() and (raw.grad[[0, 2]] != 0).any(1).all()
    changed = raw.detach() + torch.tensor([[0.0], [5.0], [0.0], [9.0]]) * torch.randn(4, case.width)
    assert torch.allclose(case.loss(changed, target, weight), value)


def test_a_batch_of_unknown_photos_costs_nothing(case: Case) -> None:
    raw = torch.randn(4, case.width, requires_grad=True)
    value = case.loss(raw, torch.zeros(4, case.width), torch.zeros(4))
    value.backward()
    assert value == 0 and raw.grad is not None and (raw.grad == 0).all()


def test_weight_scales_linearly(case: Case) -> None:
    raw, target = torch.randn(4, case.width), case.target(4)
    quarter = case.loss(raw, target, torch.full((4,), 0.25))
    assert torch.allclose(quarter, case.loss(raw, target, torch.ones(4)) / 4)


def test_right_and_sure_costs_less_than_wrong_and_sure(case: Case) -> None:
    target, right, wrong = case.sure()
    assert case.loss(right, target, torch.ones(3)) < case.loss(wrong, target, torch.ones(3))


def test_cross_entropy_is_torchs() -> None:
    raw, codes = torch.randn(16, 3), torch.arange(16) % 3
    hard = F.one_hot(codes, 3).float()
    ones = torch.ones(16)
    assert torch.allclose(loss("ce")(raw, hard, ones), F.cross_entropy(raw, codes))
    assert torch.allclose(loss("ce")(raw, soft(), ones), F.cross_entropy(raw, soft()))
    smooth = loss("ce(smoothing=0.2)")(raw, hard, ones)
    assert torch.allclose(smooth, F.cross_entropy(raw, codes, label_smoothing=0.2))
    weighted = loss("ce(weight=[1,2,3])")(raw, soft(), ones)
    assert torch.allclose(weighted, F.cross_entropy(raw, soft(), weight=torch.tensor([1.0, 2.0, 3.0])))


def test_smoothing_really_smooths() -> None:
    """The contest baseline's label smoothing had a default of 0 and did nothing."""
    sure = torch.eye(3) * 30
    assert loss("ce(smoothing=0.1)")(sure, torch.eye(3), torch.ones(3)) > 1.0
    assert loss("ce")(sure, torch.eye(3), torch.ones(3)) < 1e-6


def test_inverse_weights_average_one_over_the_training_photos() -> None:
    function = loss("ce(weight=inverse)")
    weights = function.weight  # type: ignore[attr-defined]
    assert torch.allclose(weights, 100 / (3 * COUNTS))
    assert math.isclose(float((weights * COUNTS).sum() / COUNTS.sum()), 1.0, rel_tol=1e-6)
    assert loss("ce(weight=inverse)", torch.tensor([5.0, 0.0])).weight.tolist() == [0.5, 0.0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_formula(gamma: float) -> None:
    raw, codes = torch.randn(16, 3, dtype=torch.float64), torch.arange(16) % 3
    value = Focal(COUNTS, gamma=gamma)(raw, F.one_hot(codes, 3).double(), torch.ones(16, dtype=torch.float64))
    naive = 0.0
    for row, code in enumerate(codes):
        p = math.exp(raw[row, code]) / sum(math.exp(value) for value in raw[row])
        naive += -((1 - p) ** gamma) * math.log(p) / 16
    assert math.isclose(float(value), naive, rel_tol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_class_balanced_weights_are_the_paper_s(beta: float) -> None:
    numbers = [sum(beta**k for k in range(int(count))) for count in COUNTS]  # the geometric series of the paper
    paper = [3 / number / sum(1 / other for other in numbers) for number in numbers]
    function = loss(f"class_balanced(beta={beta})")
    assert function.weight.tolist() == pytest.approx(paper, rel=1e-5)  # type: ignore[attr-defined]
    raw, ones = torch.randn(16, 3), torch.ones(16)
    assert torch.allclose(function(raw, soft(), ones), loss(f"ce(weight={paper})")(raw, soft(), ones))
    focal = loss(f"class_balanced(beta={beta}, gamma=2)")(raw, soft(), ones)
    assert torch.allclose(focal, loss(f"focal(weight={paper})")(raw, soft(), ones))
    rare = loss(f"class_balanced(beta={beta})", torch.tensor([9.0, 0.0, 9.0]))
    assert rare.weight.tolist() == [1, 0, 1]  # type: ignore[attr-defined]


def test_f1_of_hard_answers_is_sklearns_and_absent_classes_count_nought() -> None:
    torch.manual_seed(3)
    for classes in (3, 18):  # of 18 classes some are absent
        true, predicted = torch.randint(classes, (24,)), torch.randint(classes, (24,))
        predicted[:12] = true[:12]
        hard = [F.one_hot(codes, classes).float() for codes in (predicted, true)]
        value = loss("f1", torch.ones(classes))(60 * hard[0], hard[1], torch.ones(24))
        expected = f1_score(true, predicted, labels=range(classes), average="macro", zero_division=0)
        assert float(value) == pytest.approx(1 - expected, abs=1e-5)


def test_f1_of_soft_answers_counts_in_parts() -> None:
    raw, target, weight = torch.randn(6, 3), soft(6), torch.tensor([1, 0.5, 0, 1, 1, 0.25])
    p, total = raw.softmax(1), 0.0
    for c in range(3):
        tp = sum(float(weight[i] * p[i, c] * target[i, c]) for i in range(6))
        fp = sum(float(weight[i] * p[i, c] * (1 - target[i, c])) for i in range(6))
        fn = sum(float(weight[i] * (1 - p[i, c]) * target[i, c]) for i in range(6))
        total += 2 * tp / (2 * tp + fp + fn) / 3
    assert float(loss("f1")(raw, target, weight)) == pytest.approx((1 - total) * float(weight.mean()), rel=1e-5)


def test_symmetric_is_its_formula() -> None:
    raw, codes = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    naive = 0.0
    for row, code in enumerate(codes):
        p = raw[row].softmax(0)
        naive += (0.3 * -float(p[code].log()) + 0.7 * sum(4 * float(p[c]) for c in range(3) if c != code)) / 5
    assert float(loss("sce(alpha=0.3, beta=0.7)")(raw, F.one_hot(codes, 3).float(), torch.ones(5))) == pytest.approx(
        naive
    )


@pytest.mark.parametrize("bins", sorted(GROUPS))
def test_merged_probabilities_are_those_of_the_age_groups(bins: int) -> None:
    sizes = GROUPS[bins]
    years = {3: [0, 30, 60], 11: [18, 19, 20, 21, 25, 30, 49, 53, 56, 58, 60]}.get(bins, range(bins))
    group = torch.tensor([int(year >= 30) + int(year >= 60) for year in years])
    assert group.tolist() == [0] * sizes[0] + [1] * sizes[1] + [2] * sizes[2]
    raw, target, cost = torch.randn(8, bins), soft(8, bins), torch.tensor([1.5, 1.5, 7])
    merge = F.one_hot(group, 3).float()
    naive = -(cost * (target @ merge) * (raw.softmax(1) @ merge).log()).sum(1).mean()
    value = loss("merged_ce(weight=[1.5,1.5,7])", torch.ones(bins))(raw, target, torch.ones(8))
    assert torch.allclose(value, naive, rtol=1e-5)


def test_merged_minmax_is_the_published_systems() -> None:
    """Its three sums (here of bins that do not overlap) into torch's weighted cross-entropy, before the division."""
    raw, codes, cost = torch.randn(8, 11), torch.arange(8) + 3, torch.tensor([1.5, 1.5, 7])
    scaled = (raw - raw.min(1, keepdim=True)[0]) / (raw.max(1, keepdim=True)[0] - raw.min(1, keepdim=True)[0])
    sums = torch.stack([scaled[:, :5].sum(1), scaled[:, 5:10].sum(1), scaled[:, 10:].sum(1)], 1)
    groups = (codes >= 5).long() + (codes >= 10).long()
    expected = F.cross_entropy(sums, groups, weight=cost, reduction="none").mean()
    function = loss("merged_ce(weight=[1.5,1.5,7], merge=minmax)", torch.ones(11))
    assert torch.allclose(function(raw, F.one_hot(codes, 11).float(), torch.ones(8)), expected)
    assert expected * 8 / cost[groups].sum() == pytest.approx(float(F.cross_entropy(sums, groups, weight=cost)))


def test_divergence_is_torchs_and_nought_at_best() -> None:
    raw, ones = torch.randn(16, 3), torch.ones(16)
    assert torch.allclose(loss("kl")(raw, soft(), ones), F.kl_div(raw.log_softmax(1), soft(), reduction="batchmean"))
    assert abs(float(loss("kl")(soft().log(), soft(), ones))) < 1e-6


def test_binary_is_torchs() -> None:
    raw, target, ones = torch.randn(6, 3), torch.rand(6, 3), torch.ones(6)
    assert torch.allclose(loss("bce")(raw, target, ones), F.binary_cross_entropy_with_logits(raw, target))
    cost = torch.tensor([1.0, 2.0, 3.0])
    expected = F.binary_cross_entropy_with_logits(raw, target, weight=cost)
    assert torch.allclose(loss("bce(weight=[1,2,3])")(raw, target, ones), expected)


def test_the_loss_of_years_is_torchs() -> None:
    raw, years, ones = 40 + 9 * torch.randn(16, 1), torch.linspace(18, 60, 16)[:, None], torch.ones(16)
    assert torch.allclose(loss("l1")(raw, years, ones), F.l1_loss(raw, years))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ce(smoothing=1.0)", "smoothing cannot be 1.0"),
        ("ce(weight=[1,2])", "expected 3 numbers"),
        ("ce(weight=[1,2,-3])", "expected 3 numbers"),
        ("ce(weight=invers)", r"ce\(weight=\.\.\.\) cannot be 'invers'"),
        ("focal(gamma=-1)", "gamma cannot be -1"),
        ("class_balanced(beta=1)", "beta cannot be 1"),
        ("f1(eps=0)", "eps cannot be 0"),
        ("sce(alpha=0, beta=0)", "alpha, beta cannot be"),
        ("merged_ce(groups=[2,2])", r"groups cannot be \[2, 2\]; expected numbers of bins with the sum 3"),
        ("merged_ce(groups=[4,-1])", "groups cannot be"),
        ("merged_ce(weight=[1,2])", "expected 3 numbers"),
        ("merged_ce(merge=max)", "cannot be 'max'"),
        ("bce(weight=[1])", "expected 3 numbers"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        loss(text)


def test_bins_without_known_groups_must_be_told() -> None:
    with pytest.raises(RecipeError, match="groups cannot be None; expected numbers of bins with the sum 7"):
        loss("merged_ce", torch.ones(7))
