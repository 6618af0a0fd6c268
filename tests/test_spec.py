"""Component strings: what they say, that nothing in them runs, and that each mistake is one helpful line."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threefold.errors import RecipeError
from threefold.spec import Call, bind, bind_one, build, build_chain, build_one, parse


def crop(height: int, width: int = 3, *, mode: str = "area"):
    return ("crop", height, width, mode)


class Focal:
    def __init__(self, gamma: float = 2.0, weight: list[float] | None = None) -> None:
        self.gamma, self.weight = gamma, weight


def flip(p: float = 0.5):
    return ("flip", p)


def anything(**options):
    return options


def sized(channels, width: int = 8):
    return (channels, width)


TABLE = {"crop": crop, "focal": Focal, "flip": flip, "anything": anything, "sized": sized}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("flip", [Call("flip")]),
        (" flip() ", [Call("flip")]),
        ("flip(0.3)", [Call("flip", (0.3,))]),
        ("cutmix(half=vertical, p=-0.5)", [Call("cutmix", (), (("half", "vertical"), ("p", -0.5)))]),
        ("a|b(1)|c", [Call("a"), Call("b", (1,)), Call("c")]),
        ("a+b+c", [Call("a"), Call("b"), Call("c")]),
        ("0.4*f1+0.6*focal(gamma=2)", [Call("f1", weight=0.4), Call("focal", (), (("gamma", 2),), 0.6)]),
        ("ce+2*a", [Call("ce"), Call("a", weight=2.0)]),
        ("m(w=[1.5,[1,2],(3,)])", [Call("m", (), (("w", [1.5, [1, 2], (3,)]),))]),
        ("m(a=None, b='x y', c={'k': 1})", [Call("m", (), (("a", None), ("b", "x y"), ("c", {"k": 1})))]),
        ("my.lib.poly(eps=1)", [Call("my.lib.poly", (), (("eps", 1),))]),
    ],
)  # fmt: skip
def test_parse(text, calls):
    assert parse(text) == tuple(calls)


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)  # fmt: skip


@given(
    st.lists(literals, max_size=3), st.dictionaries(st.from_regex("[a-z]{1,6}_", fullmatch=True), literals, max_size=3)
)
def test_every_literal_comes_through(args, options):
    inside = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in options.items()]
    (call,) = parse(f"thing({', '.join(inside)})")
    assert (call.name, list(call.args), dict(call.options)) == ("thing", args, options)


@given(st.text(max_size=30))
def test_any_text_is_components_or_one_line(text):
    try:
        assert all(isinstance(call, Call) for call in parse(text, "model.head"))
    except RecipeError as error:
        assert str(error).startswith("model.head: ")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch ran')", "(lambda: 1)()",
        "a(b=[x for x in (1, 2)])", "a(b=1 + 1)", "a(b=f'{1}')", "a[0]", "a if b else c", "a := b", "a(*[1])",
        "a(**{'b': 1})", "a()()", "a().b", "a - b", "-a", "a*b", "a*2", "-1*a", "1", "'a'",
        "[a, b]", "a, b", "a; b", "", "a(", "a\n|b",
        "0.5*(a+b)", "2*(a|b)", "2*3*a", "lambda: a", "a(b=c.d)", "a(x, [y])", "a\0",
    ],
)  # fmt: skip
def test_what_is_not_a_component_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"^loss.age: "):
        parse(text, "loss.age")
    assert not list(tmp_path.iterdir())  # nothing ran


@pytest.mark.parametrize("inner", ["__import__('os')", "open('ran', 'w')", "dldl(sigma=2)"])
def test_a_component_as_an_option_stays_text(inner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (call,) = parse(f"multi(age={inner})", "model.head")
    assert call.options == (("age", inner),)
    if not inner.startswith("dldl"):  # and whoever builds it asks a table
        with pytest.raises(RecipeError, match=r"^model.head: '(__import__|open)' is not known"):
            build_one(inner, TABLE, "model.head")
    assert not list(tmp_path.iterdir())


def test_import_is_only_an_unknown_name():
    with pytest.raises(RecipeError, match=r"^optim: '__import__' is not known \(known: anything, crop, .*\)"):
        build("__import__('os')", TABLE, "optim")


@pytest.mark.parametrize("text", ["+".join("a" * 6000), "-" * 50000 + "1", "a(" + "[" * 300 + "]" * 300 + ")"])
def test_text_nested_beyond_reason_is_one_line(text):
    with pytest.raises(RecipeError, match=r"^optim: "):
        parse(text, "optim")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a|b+c", r"'a\|b\+c' mixes '\|' and '\+'; use one of them"),
        ("a(k=1, k=2)", r"a in 'a\(k=1, k=2\)' has an option twice"),
        ("1e999*a", "weight inf in '1e999\\*a' is not a finite number"),
        ("True*a", "weight True in 'True\\*a' is not a finite number"),
        (f"{10**400}*a", "is not a finite number"),
        ("a(b=c.d)", r"option 'c\.d' in 'a\(b=c\.d\)' is not a plain value"),
        ("a[0]", r"cannot read 'a\[0\]' in 'a\[0\]'; expected name\(option=value\)"),
        ("a()()", r"'a\(\)' in 'a\(\)\(\)' is not the name of a component"),
        ("a(", r"cannot read 'a\('; expected name\(option=value\)\|name or 0\.5\*name\+name"),
        (5, r"expected a component like name\(option=value\), not 5"),
    ],
)
def test_parse_messages(text, message):
    with pytest.raises(RecipeError, match=rf"^loss\.age: .*{message}"):
        parse(text, "loss.age")


def test_build_makes_objects_with_weights():
    assert build("crop(2)|flip(p=0.1)", TABLE, "train.augment") == [(1.0, ("crop", 2, 3, "area")), (1.0, ("flip", 0.1))]
    (half, focal), (one, plain) = build("0.5*focal(weight=[1,2])+focal(3)", TABLE, "loss.age")
    assert (half, one) == (0.5, 1.0)
    assert (focal.gamma, focal.weight, plain.gamma, plain.weight) == (2.0, [1.0, 2.0], 3.0, None)
    assert isinstance(plain.gamma, float)  # 3 was given, float is annotated


def test_what_the_code_gives_is_no_option():
    assert build_one("sized(4)", TABLE, "model.head", 1280) == (1280, 4)
    with pytest.raises(RecipeError, match=r"^model\.head: sized has no option 'channels' \(known: width"):
        build_one("sized(channels=3)", TABLE, "model.head", 1280)


def test_keywords_that_are_open_take_any_option():
    assert build_one("anything(betas=[0.9,0.99], x=y)", TABLE, "optim") == {"betas": [0.9, 0.99], "x": "y"}


def test_bind_checks_without_making():
    made = []

    def loud(x: int) -> None:
        made.append(x)

    make = bind_one("loud(1)", {"loud": loud}, "optim")
    assert made == []
    make()
    assert made == [1]


def test_what_is_bound_makes_as_many_as_are_asked_for_from_what_the_code_gives():
    ((weight, make),) = bind("0.5*sized(width=4)", TABLE, "loss.age", 1)
    assert (weight, make(3), make("rgb")) == (0.5, (3, 4), ("rgb", 4))
    with pytest.raises(RecipeError, match=r"^loss\.age: sized has no option 'channels'"):
        bind("sized(channels=3)", TABLE, "loss.age", 1)


@pytest.mark.parametrize("text", ["flip+flip", "0.5*flip", "flip|0.5*flip"])
def test_a_chain_is_no_sum(text):
    with pytest.raises(RecipeError, match=r"^train\.augment: "):
        build_chain(text, TABLE, "train.augment")
    assert len(build_chain("flip|flip(1)", TABLE, "train.augment")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", r"'flop' is not known \(known: anything, crop, flip, focal, sized; nearest: flip\)"),
        ("flip(probability=1)", r"flip has no option 'probability' \(known: p"),
        ("focal(gama=1)", r"focal has no option 'gama' \(known: gamma, weight; nearest: gamma\)"),
        ("crop", r"crop\(height, width, mode\): missing a required argument: 'height'"),
        ("crop(1, 2, 3, 4)", r"crop\(height, width, mode\): too many positional arguments"),
        ("crop(1, height=2)", r"crop\(height, width, mode\): multiple values for argument 'height'"),
        ("crop(big)", r"crop\(height=\.\.\.\) cannot be 'big': input should be a valid integer"),
        ("crop(1.5)", r"crop\(height=\.\.\.\) cannot be 1\.5: input should be a valid integer"),
        ("focal(weight=[1,x])", r"option '\[1, x\]' in 'focal\(weight=\[1,x\]\)' is not a plain value"),
        ("focal(weight=[1,'x'])", r"focal\(weight=\.\.\.\) cannot be \[1, 'x'\]: input should be a valid number"),
    ],
)
def test_build_messages(text, message):
    with pytest.raises(RecipeError, match=rf"^train\.augment: {message}"):
        build(text, TABLE, "train.augment")


@pytest.mark.parametrize("text", ["flip|flip", "flip+flip", "0.5*flip"])
def test_one_component_is_one(text):
    with pytest.raises(RecipeError, match=r"^optim: expected one component, not "):
        build_one(text, TABLE, "optim")


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(
        "from __future__ import annotations\nimport math\nname = 'x'\n"
        "def poly(eps: float = 1.0): return ('poly', eps)\ndef odd(x: math.missing = 1): return x\n"
    )
    (tmp_path / "my_broken.py").write_text("raise RuntimeError('half finished')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for module in ("my_losses", "my_broken"):
        sys.modules.pop(module, None)


@pytest.mark.usefixtures("outside")
def test_a_dotted_name_is_imported():
    assert build_one("my_losses.poly(eps=2)", TABLE, "loss.age") == ("poly", 2.0)
    assert build_one("my_losses.odd(x=3)", TABLE, "loss.age") == 3  # its annotation cannot be looked up
    with pytest.raises(RecipeError, match=r"^loss\.age: my_losses\.poly has no option 'e' \(known: eps"):
        build_one("my_losses.poly(e=2)", TABLE, "loss.age")


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such_module_x.poly", r"cannot import 'no_such_module_x\.poly' \(No module named 'no_such_module_x'\)"),
        ("my_losses.pole", r"cannot import 'my_losses\.pole' \(module 'my_losses' has no attribute 'pole'\)"),
        ("my_broken.poly", r"cannot import 'my_broken\.poly' \(half finished\)"),
        ("my_losses.name", r"my_losses\.name is not a component \("),
        ("builtins.dict", r"builtins\.dict is not a component \("),
    ],
)
def test_what_cannot_be_imported_is_one_line(text, message):
    with pytest.raises(RecipeError, match=rf"^loss\.age: {message}"):
        build(text, TABLE, "loss.age")


def test_a_table_wins_over_a_module():
    assert build_one("os.getcwd", {"os.getcwd": lambda: "ours"}, "optim") == "ours" != os.getcwd()  # noqa: PTH109
