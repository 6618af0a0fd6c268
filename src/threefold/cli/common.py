"""What the verbs share: the app, how a verb is made of a signature, and how a Result and an end are shown."""

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_type_hints

import typer

from threefold.errors import how_to_install
from threefold.files import need_writable, write_text
from threefold.results import Result

app = typer.Typer(
    help="Train, prove and run classifiers that read mask wearing, gender and age group from one photo of a face.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def attribute_names(attributes: str) -> list[str]:
    """`mask,gender` -> ["mask", "gender"]."""
    return [name.strip() for name in attributes.split(",")]


Match = Literal["contest", "none"]
Faces = Literal["all", "largest", "none"]
Model = Annotated[Path | None, typer.Option(help="exported model or run directory (default: the bundled reader)")]
Attributes = Annotated[
    str, typer.Option(help="what is read; `mask` alone: gender and age left out", callback=attribute_names)
]
Out = Annotated[Path, typer.Argument(help="folder to make; must be new or empty")]
Vote = Literal["soft", "hard"]
Rule = Literal["auto", "none", "age", "offsets", "classes", "years"]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, as a line of the recipe")]
Data = Annotated[str, typer.Option(help="layout:path[,layout:path...]")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an unfinished run")]
On = Annotated[Literal["oof", "test"], typer.Option(help="out-of-fold predictions, or scored eval photos")]
Json = Annotated[bool, typer.Option("--json", help="print everything as JSON")]
Csv = Annotated[Path | None, typer.Option(help="CSV file to write the table to; - prints it")]
Html = Annotated[Path | None, typer.Option(help="HTML file to write the page to")]
Photos = Annotated[bool, typer.Option("--photos/--no-photos", help="show pictures of people on the page")]
Lang = Annotated[Literal["en", "ko"], typer.Option(help="language of the page")]
Draws = Annotated[int, typer.Option(min=100, help="draws of persons")]
Seed = Annotated[int, typer.Option(min=0, help="same seed, same files")]


def verbs() -> set[str]:
    """The names of all verbs, as they are typed."""
    return {command.callback.__name__ for command in app.registered_commands if command.callback}


Options = dict[str, Any]


def verb(
    module: str,
    *,
    needs: Sequence[str] = (),
    extra: str = "train",
    table: bool = False,
    page: bool | Callable[[Options], Path] = False,
    adapt: Callable[[Options, Options], None] | None = None,
    name: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a verb of a signature: its docstring is the help, the function of its name in `module` does the work.

    Its arguments have the names of that function's parameters. What shows the Result is added, the same in every verb:
    --json, with `table` --csv, with `page` --html and --lang; `page` may also say where the page goes if nobody does.
    needs: packages of `extra` without which nothing can be done. adapt: changes the function's arguments, and how its
    result is shown (`tell`). name: of the function where it is another.
    """
    shown = {"json": Json} | ({"csv": Csv} if table else {}) | ({"html": Html, "lang": Lang} if page else {})
    defaults: Options = {"json": False, "csv": None, "html": None, "lang": "en"}

    def register(described: Callable[..., None]) -> Callable[..., None]:
        def command(**options: Any) -> None:
            how = {key: options.pop(key) for key in shown}
            for package in needs:
                need(package, extra)
            if callable(page) and not how["html"]:
                how["html"] = page(options)
            need_outputs(how)
            work = getattr(import_module(module), name or described.__name__)
            if adapt:
                adapt(options, how)
            parameters = inspect.signature(work).parameters
            # what was not said is left to the function, which may have a default of its own
            tell(work(**{k: v for k, v in options.items() if v is not None or parameters[k].default is None}), **how)

        hints = get_type_hints(described, include_extras=True)
        parameters = [p.replace(annotation=hints[p.name]) for p in inspect.signature(described).parameters.values()]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters += [inspect.Parameter(key, kind, default=defaults[key], annotation=shown[key]) for key in shown]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__name__, command.__doc__ = described.__name__.rstrip("_"), described.__doc__
        app.command()(command)
        return described

    return register


def need(module: str, extra: str) -> None:
    """End with one line where a package of an extra is not installed."""
    if find_spec(module) is None:
        end(f"this verb needs {module}; {how_to_install(extra)}", 2)


def need_outputs(how: Options) -> None:
    """End with one line where a result could not be shown so: asked before the work, which may take hours."""
    need_apart(how["json"], how.get("csv"), how.get("html"))
    if how.get("html"):
        need("jinja2", "train")
    for file in (how.get("csv"), how.get("html")):
        if file and str(file) != "-":
            need_writable(file)


def need_apart(json: bool, csv: Path | None, html: Path | None) -> None:
    """End with one line where two outputs have one place."""
    if json and str(csv) == "-":
        end("--json and --csv - both print; give --csv a file", 2)
    if html and csv and html.resolve() == csv.resolve():
        end(f"--csv and --html are both {html}; expected two files", 2)


def tell(
    result: Result,
    *,
    json: bool = False,
    csv: Path | None = None,
    html: Path | None = None,
    lang: str = "en",
    quiet: bool = False,
) -> None:
    """Show a result: its lines on stdout, or with `json` its data, or with `csv` as `-` its table.

    html, csv: files that get its page in `lang` and its table. They are written first, since whoever reads stdout may
    close it (`| head`). quiet: its lines are left out. A result whose answer is no ends with exit code 1.
    """
    printed = str(csv) == "-"
    need_apart(json, csv, html)
    if html and (page := result.page(lang)) is not None:
        write_text(html, page)
    if csv and not printed:
        write_text(csv, result.csv())
    if json or printed:
        sys.stdout.write(result.json() if json else result.csv())
    elif not quiet:
        for line in result.lines():
            typer.secho(line, fg="yellow" if line.startswith("! ") else None, err=result.aside)
    if written := [str(path) for path in (html, csv) if path and str(path) != "-"]:
        typer.echo(f"written: {', '.join(written)}", err=True)
    if result.failure:
        end(result.failure, 1)


def end(text: str, code: int) -> NoReturn:
    """Say why on stderr and exit."""
    print(f"threefold: {text}", file=sys.stderr)
    raise SystemExit(code)
