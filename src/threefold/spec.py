"""`name(k=v)|name(...)` and `0.4*f1+0.6*focal`: components as one string, the same in a file, an argument and a table.

The text is parsed as a Python expression but never evaluated: names, literals, `|`, `+` and `number*` only. A bare
word as an option is a string (`half=vertical`), and so is a component as an option (`age=dldl(sigma=2)`). A dotted
name is imported and called, so a recipe that holds one is to be trusted like the code it names. `bind` checks a
string once; what it gives makes the component as often as it is needed.
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from threefold.errors import RecipeError, one_of

Factory = Callable[..., Any]
Table = Mapping[str, Factory]


@dataclass(frozen=True)
class Call:
    """One component: `name(*args, **options)`, times `weight` in a sum."""

    name: str
    args: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    weight: float = 1.0


def parse(text: str, key: str = "spec", *, chain: bool = False) -> tuple[Call, ...]:
    """Components of a chain (`a|b`) or a sum (`a+0.5*b`), in order; raises RecipeError naming key and text.

    chain: refuse a sum and a weight.
    """
    if not isinstance(text, str):
        raise RecipeError(f"{key}: expected a component like name(option=value), not {text!r}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        kinds: set[type] = set()
        calls = tuple(_terms(tree, key, text, kinds))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested beyond what ast can hold
        raise RecipeError(f"{key}: cannot read {text!r}; expected name(option=value)|name or 0.5*name+name") from None
    if len(kinds) > 1:
        raise RecipeError(f"{key}: {text!r} mixes '|' and '+'; use one of them")
    if chain and (ast.Add in kinds or any(call.weight != 1.0 for call in calls)):
        raise RecipeError(f"{key}: {text!r} is a sum; expected a chain like name(option=value)|name")
    return calls


def _terms(node: ast.expr, key: str, text: str, kinds: set[type]) -> list[Call]:
    match node:
        case ast.BinOp(left, ast.BitOr() | ast.Add() as operator, right):
            kinds.add(type(operator))
            return _terms(left, key, text, kinds) + _terms(right, key, text, kinds)
        case ast.BinOp(
            ast.Constant(int() | float() as weight), ast.Mult(), (ast.Call() | ast.Name() | ast.Attribute()) as right
        ):
            if isinstance(weight, bool) or weight > 1e9:  # `1e999` is infinite, `True` an int
                raise RecipeError(f"{key}: weight {weight!r} in {text!r} is not a finite number")
            return [replace(call, weight=float(weight)) for call in _terms(right, key, text, kinds)]
        case ast.Call(function, args, keywords) if all(word.arg for word in keywords):
            values = tuple(_literal(arg, key, text) for arg in args)
            options = tuple((str(word.arg), _literal(word.value, key, text)) for word in keywords)
            name = _dotted(function, key, text)
            if len(dict(options)) < len(options):
                raise RecipeError(f"{key}: {name} in {text!r} has an option twice")
            return [Call(name, values, options)]
        case ast.Name() | ast.Attribute():
            return [Call(_dotted(node, key, text))]
    raise RecipeError(f"{key}: cannot read {ast.unparse(node)!r} in {text!r}; expected name(option=value)")


def _dotted(node: ast.expr, key: str, text: str) -> str:
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(value, name):
            return f"{_dotted(value, key, text)}.{name}"
    raise RecipeError(f"{key}: {ast.unparse(node)!r} in {text!r} is not the name of a component")


def _literal(node: ast.expr, key: str, text: str) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call):  # a component inside a component, which builds it from this text with its own table
        return ast.unparse(node)
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError):
        raise RecipeError(f"{key}: option {ast.unparse(node)!r} in {text!r} is not a plain value") from None


def bind(text: str, table: Table, key: str, provided: int = 0) -> list[tuple[float, Factory]]:
    """Check every component of `text` without making it: its weight, and the callable that makes it.

    The callable takes what the code, not the recipe, has: the `provided` leading arguments of `table[name]`. A name
    with a dot that the table does not know is imported. Raises RecipeError naming key, component, option, what is known
    and the nearest.
    """
    return [(call.weight, _bind(call, table, key, provided)) for call in parse(text, key)]


def bind_one(text: str, table: Table, key: str, provided: int = 0) -> Factory:
    """`bind` where exactly one component without a weight makes sense."""
    calls = parse(text, key)
    if len(calls) != 1 or calls[0].weight != 1.0:
        raise RecipeError(f"{key}: expected one component, not {text!r}")
    return _bind(calls[0], table, key, provided)


def build(text: str, table: Table, key: str, *provided: Any) -> list[tuple[float, Any]]:
    """`bind`, and every component made at once from the arguments that the code has."""
    return [(weight, make(*provided)) for weight, make in bind(text, table, key, len(provided))]


def build_one(text: str, table: Table, key: str, *provided: Any) -> Any:
    """`bind_one`, and the component made."""
    return bind_one(text, table, key, len(provided))(*provided)


def build_chain(text: str, table: Table, key: str) -> list[Any]:
    """`build` for `a|b`, where a sum or a weight makes no sense."""
    return [_bind(call, table, key, 0)() for call in parse(text, key, chain=True)]


def need(condition: bool, option: str, value: object, expected: str) -> None:
    """Refuse what an option cannot be: RecipeError unless `condition`; option: with its key, as in `optim: lr`."""
    if not condition:
        raise RecipeError(f"{option} cannot be {value}; expected {expected}")


def _bind(call: Call, table: Table, key: str, provided: int) -> Factory:
    """Check a component against its signature and annotations."""
    factory = table[call.name] if call.name in table else _import(call.name, table, key)
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError) as error:  # not callable, or built in without a signature
        raise RecipeError(f"{key}: {call.name} is not a component ({error})") from None
    options, parameters = dict(call.options), signature.parameters
    names = [name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD][provided:]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in names and not open_ended:
            raise RecipeError(f"{key}: {call.name} has no option {option!r} ({one_of(names, option)})")
    try:
        bound = signature.bind(*[None] * provided, *call.args, **options)
    except TypeError as error:
        raise RecipeError(f"{key}: {call.name}({', '.join(names)}): {error}") from None
    try:
        hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError, AttributeError):  # a component from outside may be annotated with names we cannot see
        hints = {}
    for name in names:
        if name in bound.arguments and name in hints and parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = _checked(bound.arguments[name], hints[name], f"{key}: {call.name}({name}=...)")
    args, keywords = bound.args[provided:], bound.kwargs
    return lambda *leading: factory(*leading, *args, **keywords)


def _checked(value: Any, hint: Any, where: str) -> Any:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise RecipeError(f"{where} cannot be {value!r}: {reason[0].lower()}{reason[1:]}") from None


def _import(name: str, table: Table, key: str) -> Factory:
    module, _, attribute = name.rpartition(".")
    if module:
        try:
            return cast(Factory, getattr(importlib.import_module(module), attribute))
        except Exception as error:  # a module from outside may fail to load in any way
            raise RecipeError(f"{key}: cannot import {name!r} ({error})") from None
    raise RecipeError(f"{key}: {name!r} is not known ({one_of(table, name)})")
