"""The exception tree: everything threefold refuses with, one line for a person and the exit code of the command.

A message names the file or key, the value, what was expected and, where names are involved, the nearest valid one. A
RecipeError is of a recipe's file, key or value, a DataError of a folder, table or label (PhotoError: one photo;
LeakError: a person on both sides), a RunError of a run directory, an AssetError of a model file that is not here, a
TrainingError of training that cannot go on: exit code 2. CheckFailed: the work was done and its answer is no, 1.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class ThreefoldError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code = 2


class RecipeError(ThreefoldError):
    """A recipe file, key, value or component spec that cannot be used."""


class DataError(ThreefoldError):
    """A folder, table or label that cannot be used."""


class PhotoError(DataError):
    """One photo that cannot be read."""


class LeakError(DataError):
    """A person, or a copied photo, would be on both sides of a split."""


class RunError(ThreefoldError):
    """A run directory that is missing, incomplete, already taken or of an unknown format."""


class AssetError(ThreefoldError):
    """A model file that is not on this machine; the message says how to get it."""


class TrainingError(ThreefoldError):
    """Training cannot go on."""


class CheckFailed(ThreefoldError):
    """The work was done and its answer is no."""

    exit_code = 1


MANY = 60
"""Names that a message lists at most: all of any table of components, not every run of a folder."""


def one_of(names: Iterable[str], value: str) -> str:
    """`known: a, b, c; nearest: b` - the tail of every message about an unknown name; of more than MANY the first."""
    ordered = sorted(names)
    near = get_close_matches(value, ordered, n=1, cutoff=0.4)
    listed = ", ".join(ordered[:MANY]) or "none"
    if len(ordered) > MANY:
        listed += f" and {len(ordered) - MANY} more"
    return f"known: {listed}" + (f"; nearest: {near[0]}" if near else "")


def how_to_install(extra: str) -> str:
    """How a package of an extra is brought, for messages: from a checkout or a wheel, quoted so that zsh takes it."""
    return f"from a checkout `pip install '.[{extra}]'` brings it, from a wheel `pip install 'FILE.whl[{extra}]'`"
