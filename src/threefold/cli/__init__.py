"""The verbs of the command line, thin: arguments in, one function called, its Result shown.

Bad input is one line on stderr and exit code 2; a check that says no is exit code 1; ctrl-c is 130. Verbs import what
they need when they are called, so that `threefold --help` and the verbs without a network start in a moment.
"""

import errno
import os
import sys
from typing import Annotated

import typer

from threefold import __version__, progress
from threefold.cli import data, entrance, evidence, inference, reference, training
from threefold.cli.common import app, end, verbs
from threefold.errors import ThreefoldError

__all__ = ["app", "data", "entrance", "evidence", "inference", "main", "reference", "training"]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """What stands before a verb."""
    if version:
        typer.echo(f"threefold {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: run a verb, turn what can go wrong into one line."""
    progress.show()
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == 130:  # typer makes this of ctrl-c
            end("stopped", 130)
        raise SystemExit(code if isinstance(code, int) else 0)
    except ThreefoldError as error:
        end(str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.EPIPE:  # `threefold ... | head` closed the pipe: not a fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        where = f"{error.filename}: " if error.filename else ""
        end(f"{where}{error.strerror or error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        end("stopped", 130)
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
            reason = (str(error).strip() or "no more to be had").splitlines()[0]
            end(f"out of memory: {reason}; a smaller train.batch or prepare.size needs less", 2)
        # what the argument parser says no with; its class moved between typer's versions, its two members did not
        if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
            raise
        verb = f" {sys.argv[1]}" if sys.argv[1] in verbs() else ""
        end(f"{error.format_message().rstrip('.')}; `threefold{verb} --help` shows what there is", 2)
