"""The contract of heads, for every row of the table with every age output; then what each promises of its own."""

import numpy as np
import pytest
import torch
from helpers import every
from torch.nn.functional import binary_cross_entropy_with_logits, dropout

from threefold.errors import RecipeError
from threefold.learn.ages import AGES
from threefold.learn.heads import HEADS, Flat18, Head, Multi
from threefold.learn.loop import total_loss
from threefold.learn.plan import make_plan
from threefold.learn.target import Target, make_target, mix
from threefold.recipe import make_recipe
from threefold.spec import build_one

OPTIONS = [
    "years61(cuts=[31,59])",
    "regression(scale=6.0)",
    "coral(starts=[0,30,60])",
    "dldl(sigma=1.5,low=10,high=90)",
]
SPECS = [
    *every(HEADS),
    "flat18(hidden=[16], dropout=0.1)",
    "one(gender, hidden=[8])",
    "multi(hidden=[16, 8], dropout=0.5)",
    "multi(split=True, dropout=0.2, samples=3)",
    "multi(split=True, conditioned=True, age=dldl(sigma=3), hidden=[8])",
    *(f"multi(age={age})" for age in [*every(AGES), *OPTIONS]),
    *(f"one(age, age={age})" for age in [*every(AGES), *OPTIONS]),
    *(f"multi(age={age}, conditioned=True)" for age in every(AGES)),
]
FEATURES = 12


def make_head(text: str) -> Head:
    torch.manual_seed(0)
    head = build_one(text, HEADS, "model.head", FEATURES)
    assert isinstance(head, Head)
    return head


def target(count: int = 64) -> Target:
    rng = np.random.default_rng(0)
    parts = np.stack([rng.integers(-1, size, count) for size in (3, 2, 3)], axis=1).astype(np.int8)
    ages = np.where(rng.random(count) < 0.5, np.nan, rng.integers(16, 90, count)).astype(np.float32)
    return make_target(parts, ages)


@pytest.fixture(params=SPECS)
def head(request: pytest.FixtureRequest) -> Head:
    return make_head(request.param)


def test_joint_is_a_distribution(head: Head) -> None:
    joint = head.joint(head.outputs(torch.randn(7, FEATURES) * 20))
    assert joint.shape == (7, 18)
    assert torch.isfinite(joint).all() and (joint >= 0).all()
    assert torch.allclose(joint.sum(1), torch.ones(7), atol=1e-5)


def test_years_are_years_or_none(head: Head) -> None:
    years = head.years(head.outputs(torch.randn(7, FEATURES) * 20))
    assert years is None or (years.shape == (7,) and (years >= 0).all() and (years <= 120).all())


def test_targets_have_the_outputs_names_and_shapes(head: Head) -> None:
    outputs, targets = head.outputs(torch.randn(64, FEATURES)), head.targets(target())
    assert outputs.keys() == targets.keys() == head.kinds.keys()
    for name, raw in outputs.items():
        assert targets[name].value.shape == raw.shape
        assert targets[name].weight.shape == (64,)
        assert ((targets[name].weight >= 0) & (targets[name].weight <= 1)).all()


def test_targets_commute_with_mixing(head: Head) -> None:
    one, share = target(), torch.rand(64)
    other = one.take(torch.randperm(64))
    of_mix = head.targets(mix(one, other, share))
    left, right = head.targets(one), head.targets(other)
    for name, soft in of_mix.items():
        weight = share[:, None]
        naive = weight * left[name].value + (1 - weight) * right[name].value
        assert torch.allclose(soft.value, naive, atol=1e-6, rtol=1e-5)
        assert torch.allclose(soft.weight, share * left[name].weight + (1 - share) * right[name].weight, atol=1e-6)


def classes(raw: torch.Tensor, soft: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return -((soft * raw.log_softmax(1)).sum(1) * weight).mean()


def steps(raw: torch.Tensor, soft: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (binary_cross_entropy_with_logits(raw, soft, reduction="none").mean(1) * weight).mean()


def value(raw: torch.Tensor, soft: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return ((raw - soft).abs().mean(1) * weight).mean()


def losses(head: Head):
    """The plain loss of each kind."""
    fitting = {"classes": classes, "steps": steps, "value": value}
    return {name: [(1.0, fitting[kind])] for name, kind in head.kinds.items()}


def train(head: Head, goal: dict, features: torch.Tensor, updates: int = 60) -> None:
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(updates):
        loss = total_loss(losses(head), head.outputs(features), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()


def marginal(head: Head, features: torch.Tensor, column: int) -> torch.Tensor:
    cube = head.joint(head.outputs(features)).view(-1, 3, 2, 3)
    return cube.sum(dim=[axis for axis in (1, 2, 3) if axis != column + 1])


def test_a_photo_without_labels_moves_nothing(head: Head) -> None:
    head.eval()
    features = torch.randn(2, FEATURES, requires_grad=True)
    nobody = make_target(np.full((2, 3), -1, dtype=np.int8), np.full(2, np.nan, dtype=np.float32))
    total_loss(losses(head), head.outputs(features), head.targets(nobody)).backward()
    assert features.grad is not None and (features.grad == 0).all()


@pytest.mark.parametrize("text", SPECS)
def test_an_attribute_known_alone_is_learned(text: str) -> None:
    """Training on one attribute must drive its marginal to the truth, whatever the head's shape."""
    for column, attribute in enumerate(("mask", "gender", "age_group")):
        head, half = make_head(text), torch.arange(12) % 2
        if attribute not in head.attributes:
            continue
        parts = np.full((12, 3), -1, dtype=np.int8)
        parts[:, column] = half * (2 if column == 2 else 1)
        features = torch.eye(2)[half].repeat(1, FEATURES // 2) * 3
        train(head, head.targets(make_target(parts, np.full(12, np.nan, dtype=np.float32))), features)
        assert (marginal(head, features, column).argmax(1).numpy() == parts[:, column]).all(), attribute


@pytest.mark.parametrize("text", [*every(AGES), *OPTIONS])
@pytest.mark.parametrize("form", ["multi(age={})", "multi(age={}, conditioned=True)", "one(age, age={})"])
def test_a_year_is_learned(text: str, form: str) -> None:
    """Years must drive the group to the truth, and what is read off as years near them."""
    head = make_head(form.format(text))
    ages = np.array([20, 45, 70] * 4, dtype=np.float32)
    parts = np.stack([np.full(12, -1), np.arange(12) // 3 % 2, np.full(12, -1)], axis=1).astype(np.int8)
    features = torch.eye(3)[torch.arange(12) % 3].repeat(1, FEATURES // 3) * 2
    train(head, head.targets(make_target(parts, ages)), features)
    assert (marginal(head, features, 2).argmax(1) == torch.arange(12) % 3).all()
    years = head.years(head.outputs(features))
    assert (years is None) == text.startswith(("groups", "bins"))
    if years is not None and text != "coral(starts=[0,30,60])":  # whose years are 29, 30 and 60
        last = 60 if text.startswith(("years61", "coral")) else 120
        assert (years - torch.from_numpy(ages).clamp_max(last)).abs().max() < 8


def test_every_parameter_gets_a_gradient(head: Head) -> None:
    rng = np.random.default_rng(1)
    parts = np.stack([rng.integers(0, size, 64) for size in (3, 2, 3)], axis=1).astype(np.int8)
    full = make_target(parts, rng.integers(16, 90, 64).astype(np.float32))
    total_loss(losses(head), head.outputs(torch.randn(64, FEATURES)), head.targets(full)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_a_head_of_other_outputs_needs_no_key_in_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new head calls its outputs are the recipe's keys of their losses."""

    class Person(Flat18):
        kinds = dict.fromkeys(["person"], "classes")

        def outputs(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"person": super().outputs(features)["joint"]}

    monkeypatch.setitem(HEADS, "person", Person)
    options = {"model.head": "person", "loss.person": "focal(gamma=1)", "train.device": "cpu"}
    plan = make_plan(make_recipe(options))
    ((_, focal),) = plan.make_losses({"person": torch.ones(18)})["person"]
    assert focal.gamma == 1  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match=r"loss\.persons: person has no such output \(known: person; nearest: person"):
        make_plan(make_recipe({**options, "loss.persons": "ce"}))


def test_flat18_marginal_logits_are_the_marginals_of_its_joint() -> None:
    head = make_head("flat18")
    outputs = head.outputs(torch.randn(5, FEATURES))
    cube = head.joint(outputs).view(-1, 3, 2, 3)
    assert torch.allclose(outputs["mask"].softmax(1), cube.sum((2, 3)), atol=1e-6)
    assert torch.allclose(outputs["gender"].softmax(1), cube.sum((1, 3)), atol=1e-6)
    assert torch.allclose(outputs["age"].softmax(1), cube.sum((1, 2)), atol=1e-6)


def test_flat18_trains_the_joint_alone_where_all_is_known() -> None:
    head = Flat18(FEATURES)
    full = head.targets(make_target(np.array([[1, 1, 1]], dtype=np.int8), np.array([40], dtype=np.float32)))
    assert {name: float(part.weight.sum()) for name, part in full.items()} == {
        "joint": 1,
        "mask": 0,
        "gender": 0,
        "age": 0,
    }


def test_multi_joint_is_the_product_of_its_parts() -> None:
    head = make_head("multi")
    outputs = head.outputs(torch.randn(3, FEATURES))
    joint = head.joint(outputs)
    for code in range(18):
        parts = (("mask", code // 6), ("gender", code // 3 % 2), ("age", code % 3))
        naive = torch.stack([outputs[name].softmax(1)[:, part] for name, part in parts]).prod(0)
        assert torch.allclose(joint[:, code], naive, atol=1e-6)


def test_conditioned_joint_is_mask_times_gender_times_age_given_gender() -> None:
    head = make_head("multi(age=bins11, conditioned=True)")
    outputs = head.outputs(torch.randn(3, FEATURES))
    joint = head.joint(outputs)
    groups = ((0, 5), (5, 10), (10, 11))
    for code in range(18):
        mask, gender, (low, high) = code // 6, code // 3 % 2, groups[code % 3]
        conditional = outputs[("age.male", "age.female")[gender]].softmax(1)[:, low:high].sum(1)
        naive = outputs["mask"].softmax(1)[:, mask] * outputs["gender"].softmax(1)[:, gender] * conditional
        assert torch.allclose(joint[:, code], naive, atol=1e-6)
    assert torch.allclose(outputs["age_group"].exp(), joint.view(3, 3, 2, 3).sum((1, 2)), atol=1e-6)


def test_conditioned_trains_each_age_on_its_own_gender() -> None:
    parts = np.array([[0, 0, 2], [0, 1, 0], [0, 0, 1], [0, -1, 1]], dtype=np.int8)
    targets = make_head("multi(age=bins11, conditioned=True)").targets(
        make_target(parts, np.float32([70, 20, np.nan, 50]))
    )
    weights = {name: part.weight.tolist() for name, part in targets.items() if name.startswith("age")}
    assert weights == {"age.male": [1, 0, 0, 0], "age.female": [0, 1, 0, 0], "age_group.male": [0, 0, 1, 0],
                     "age_group.female": [0, 0, 0, 0], "age_group": [0, 0, 0, 1]}  # fmt: skip
    assert targets["age.male"].value[0].argmax() == 10 and targets["age_group"].value[3].tolist() == [0, 1, 0]


def test_conditioned_years_are_the_mean_over_genders() -> None:
    head = make_head("multi(age=regression, conditioned=True)")
    outputs = head.outputs(torch.randn(5, FEATURES))
    gender = outputs["gender"].softmax(1)
    naive = gender[:, 0] * outputs["years.male"][:, 0] + gender[:, 1] * outputs["years.female"][:, 0]
    assert torch.allclose(head.years(outputs), naive.clamp(0, 120), atol=1e-4)


@pytest.mark.parametrize(("text", "axis"), [("one(mask)", 1), ("one(gender)", 2), ("one(age_group, age=bins11)", 3)])
def test_one_is_its_own_marginal_and_uniform_elsewhere(text: str, axis: int) -> None:
    head = make_head(text)
    outputs = head.outputs(torch.randn(4, FEATURES))
    cube = head.joint(outputs).view(-1, 3, 2, 3)
    alone = cube.sum([other for other in (1, 2, 3) if other != axis])
    raw = next(iter(outputs.values())).softmax(1)
    expected = torch.stack([raw[:, :5].sum(1), raw[:, 5:10].sum(1), raw[:, 10]], 1) if axis == 3 else raw
    assert torch.allclose(alone, expected, atol=1e-6)
    for other in {1, 2, 3} - {axis}:
        assert torch.allclose(cube.amax(other), cube.amin(other))
    assert head.attributes == (("mask", "gender", "age_group")[axis - 1],)


def test_split_gives_each_attribute_its_own_third() -> None:
    head = make_head("multi(split=True, age=years61)")
    features = torch.randn(2, FEATURES, requires_grad=True)
    for third, name in enumerate(("mask", "gender", "age")):
        (grad,) = torch.autograd.grad(head.outputs(features)[name].square().sum(), features)
        seen = grad.abs().sum(0) > 0
        assert seen.tolist() == [at // 4 == third for at in range(FEATURES)]


def test_samples_are_the_mean_logits_of_as_many_draws() -> None:
    head, features = make_head("multi(hidden=[16], dropout=0.5, samples=4)"), torch.randn(6, FEATURES)
    assert isinstance(head, Multi)
    *hidden, _, last = head.mask.classifier
    torch.manual_seed(5)
    logits = head.mask.classifier(features)
    torch.manual_seed(5)
    for layer in hidden:
        features = layer(features)
    assert torch.allclose(logits, torch.stack([last(dropout(features, 0.5)) for _ in range(4)]).mean(0), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("multi(dropout=1.0)", "hidden="),
        ("multi(hidden=[0])", "hidden="),
        ("flat18(dropout=-0.1)", "hidden="),
        ("multi(dropout=0.5, samples=0)", "samples=0"),
        ("multi(samples=2)", "samples=2"),
        ("multi(split=True)", r"split=True\) on 11 features"),
        ("one(mask, age=bins11)", "one\\(mask\\) has no age output"),
        ("one(face)", "attribute"),
        ("one", "attribute"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=rf"^model\.head: .*{words}"):
        build_one(text, HEADS, "model.head", 11)
