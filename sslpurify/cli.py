"""The command line: flags in, one table or one JSON object out. The work is done in ``run``.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

import importlib
import json
import signal
import sys
import traceback
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sslpurify.errors import CheckpointError, SslPurifyError

if TYPE_CHECKING:
    from sslpurify.run import Answer

app = typer.Typer(
    help="Take a suspicious self-supervised encoder and give it back without its backdoor.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipes = typer.Typer(help="The recipes that come with the package.", no_args_is_help=True)
app.add_typer(recipes, name="recipe")

Triple = tuple[float, float, float]
Checkpoint = Annotated[
    Path | None,
    typer.Argument(help="The encoder's file.", metavar="CHECKPOINT", show_default=False),
]
Arch = Annotated[str | None, typer.Option(help="Architecture, e.g. simclr/resnet18-cifar.")]
Config = Annotated[Path | None, typer.Option(help="A recipe (YAML); flags win over it.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the recipe."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw.  [default: 0]")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.  [default: auto]")]
Mean = Annotated[Triple | None, typer.Option(metavar="R G B", help="Normalization: means.")]
Std = Annotated[Triple | None, typer.Option(metavar="R G B", help="Normalization: deviations.")]
Size = Annotated[
    int | None, typer.Option("--force-image-size", help="Side of the images in pixels.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Verbose = Annotated[
    bool | None,
    typer.Option(
        "--verbose/--quiet", help="Tell every step, or only warnings.", show_default=False
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder for the results, new or empty.")]


@app.command()
def demo(
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
    verbose: Verbose = None,
) -> None:
    """Purify the poisoned encoder that comes with the package.

    Evaluates it, purifies it, evaluates it again; minutes on two CPU cores.
    """
    with _edge(as_json, debug), _progress(verbose) as listener:
        from sslpurify import run

        answer = run.demo(out, seed=seed or 0, device=device or "auto", listener=listener)
        _show(answer, as_json)


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="The file.", metavar="CHECKPOINT")],
    arch: Arch = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a checkpoint holds; executes nothing.

    Names the format, the architecture that fits, its permutation groups, and what is wrong.
    """
    with _edge(as_json, debug):
        from sslpurify import run

        answer = run.inspect(checkpoint, arch)
        _show(answer, as_json)
        if answer.data["problems"]:
            raise typer.Exit(CheckpointError.exit_code)


@app.command()
def purify(
    checkpoint: Checkpoint = None,
    arch: Arch = None,
    data: Annotated[Path | None, typer.Option(help="Folder of clean images, no labels.")] = None,
    out: Out = None,
    method: Annotated[str | None, typer.Option(help="The method.  [default: tsc]")] = None,
    config: Config = None,
    settings: Set = None,
    seed: Seed = None,
    device: Device = None,
    image_mean: Mean = None,
    image_std: Std = None,
    image_size: Size = None,
    as_json: Json = False,
    debug: Debug = False,
    verbose: Verbose = None,
) -> None:
    """Take the backdoor out of an encoder.

    A few clean images suffice; neither labels nor anything about the attack is needed.
    """
    flags = _recipe_keys(locals())
    with _edge(as_json, debug), _progress(verbose) as listener:
        from sslpurify import recipe, run

        wanted = recipe.load(recipe.PurifyRecipe, config, settings=settings or (), flags=flags)
        _show(run.purify(wanted, listener), as_json)


@app.command()
def evaluate(
    checkpoint: Checkpoint = None,
    before: Annotated[Path | None, typer.Option(help="The file before purification.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="A never attacked file: its ASR is the floor.")
    ] = None,
    arch: Arch = None,
    train: Annotated[
        Path | None, typer.Option(help="The probe's images, a folder for each class.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="The images to classify, a folder for each class.")
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="The trigger: npz, picture, YAML or a built-in name.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The trigger's class, by name.")] = None,
    probes: Annotated[
        str | None,
        typer.Option("--probe", help="knn, linear, mlp; several by commas.  [default: knn]"),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="exclude-target or all.  [default: exclude-target]")
    ] = None,
    config: Config = None,
    settings: Set = None,
    seed: Seed = None,
    device: Device = None,
    image_mean: Mean = None,
    image_std: Std = None,
    image_size: Size = None,
    as_json: Json = False,
    debug: Debug = False,
    verbose: Verbose = None,
) -> None:
    """Measure clean accuracy and attack success rate.

    Of the encoder, and beside it of the one before purification and one never attacked.
    """
    flags = _recipe_keys(locals())
    with _edge(as_json, debug), _progress(verbose) as listener:
        from sslpurify import recipe, run

        wanted = recipe.load(recipe.EvaluateRecipe, config, settings=settings or (), flags=flags)
        _show(run.evaluate(wanted, listener), as_json)


@app.command()
def attack(
    recipe_file: Annotated[Path, typer.Argument(help="An attack recipe.", metavar="RECIPE.yaml")],
    settings: Set = None,
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
    verbose: Verbose = None,
) -> None:
    """Make a victim to test purification on.

    Fails, and writes nothing, when the attack does not reach the gate of its recipe.
    """
    flags = {"seed": seed, "device": device}
    with _edge(as_json, debug), _progress(verbose) as listener:
        from sslpurify import recipe, run

        wanted = recipe.load(recipe.AttackRecipe, recipe_file, settings=settings or (), flags=flags)
        _show(run.attack(wanted, listener), as_json)


@recipes.command("list")
def recipe_list(as_json: Json = False, debug: Debug = False) -> None:
    """Name the shipped recipes and what each is for."""
    with _edge(as_json, debug):
        from sslpurify import run

        _show(run.list_recipes(), as_json)


@recipes.command("show")
def recipe_show(
    name: Annotated[str, typer.Argument(help="A name from `recipe list`.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print a shipped recipe."""
    with _edge(as_json, debug):
        from sslpurify import run

        _show(run.show_recipe(name), as_json)


@recipes.command("check")
def recipe_check(
    files: Annotated[list[Path], typer.Argument(help="Recipe files.", metavar="FILE...")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say everything that is wrong with a recipe."""
    with _edge(as_json, debug):
        from sslpurify import run

        _show(run.check_recipes(files), as_json)


@recipes.command("copy")
def recipe_copy(
    name: Annotated[str, typer.Argument(help="A name from `recipe list`.")],
    to: Annotated[Path, typer.Argument(help="The new file, or a folder for it.")] = Path(),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy a shipped recipe, to change it."""
    with _edge(as_json, debug):
        from sslpurify import run

        _show(run.copy_recipe(name, to), as_json)


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say what this machine offers to a run.

    Versions, devices, faiss, shared memory.
    """
    with _edge(as_json, debug):
        from sslpurify import run

        _show(run.doctor(), as_json)


def main() -> None:
    """Run the command line and exit with the documented code."""
    signal.signal(signal.SIGTERM, _terminated)
    app()


_NOT_RECIPE = {"config", "settings", "as_json", "debug", "verbose"}


def _recipe_keys(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key not in _NOT_RECIPE}


def _progress(verbose: bool | None) -> "AbstractContextManager[Any]":
    from sslpurify.report import progress

    importlib.import_module("sslpurify.run")  # must not count towards the first stage's time

    return progress(sys.stderr, quiet=verbose is False, verbose=verbose is True)


def _show(answer: "Answer", as_json: bool) -> None:
    typer.echo(json.dumps(answer.data, allow_nan=False) if as_json else answer.text)


@contextmanager
def _edge(as_json: bool, debug: bool) -> Generator[None]:
    """Turn every error of a command into one message and the documented exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except SslPurifyError as error:
        _fail(error, str(error), error.exit_code, as_json, debug)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted", 130, as_json, debug)
    except Exception as error:  # noqa: BLE001 - the one place that no error passes
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        hint = "a bug in sslpurify, or a broken machine; --debug shows where"
        _fail(error, f"internal error ({hint}): {reason}", 1, as_json, debug)


def _fail(error: BaseException, message: str, code: int, as_json: bool, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    typer.echo(f"sslpurify: {message}", err=True)
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
    raise typer.Exit(code)


def _terminated(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(143)
