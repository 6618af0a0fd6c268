"""threefold: train, prove and run classifiers that read mask wearing, gender and age group from a photo of a face.

The verbs of the command line are functions here, and each returns a `Result`. Names are looked up when they are first
used, so that `import threefold` stays light and never imports torch; reading with the bundled or an exported model
needs nothing more. What trains, reads with a run or writes a page needs the extra `train`. The list of names is
`__init__.pyi`.
"""

import ast
import os
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = version("threefold")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime's wheels send usage data to Microsoft by default

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOMES = {name.name: str(line.module) for line in _STUB.body if isinstance(line, ast.ImportFrom) for name in line.names}
__all__ = sorted(_HOMES)  # noqa: PLE0605


class _Surface(ModuleType):
    """The package itself. Some verbs have the name of a room or module (`train`, `runs`): here it is the verb.

    Python binds every submodule that is imported to its parent; for those names it must not, or `threefold.train` would
    be the verb or the room depending on what was imported before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Surface


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'threefold' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
