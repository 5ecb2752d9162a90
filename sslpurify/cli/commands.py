"""The verbs: flags in, one table or one JSON object out. The work is done in ``run``.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from sslpurify.cli.edge import edge, recipe_keys, show, telling
from sslpurify.cli.options import (
    AllowTorchscript,
    Arch,
    Checkpoint,
    Config,
    Debug,
    Device,
    Json,
    MaxBadFraction,
    Mean,
    Out,
    QuickGelu,
    Resume,
    Seed,
    Set,
    Size,
    Std,
    TextFrom,
    Tokenizer,
    Verbose,
)
from sslpurify.errors import CheckpointError, ConfigError
from sslpurify.interruption import heeded

app = typer.Typer(
    help="Take a suspicious self-supervised encoder and give it back without its backdoor.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipes = typer.Typer(help="The recipes that come with the package.", no_args_is_help=True)
app.add_typer(recipes, name="recipe")


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
    with edge(as_json, debug), telling(verbose) as listener:
        from sslpurify import run

        answer = run.demo(out, seed=seed or 0, device=device or "auto", listener=listener)
        show(answer, as_json)


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="The file.", metavar="CHECKPOINT")],
    arch: Arch = None,
    allow_torchscript: AllowTorchscript = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a checkpoint holds; executes nothing.

    Names the format, the architecture that fits, its permutation groups, and what is wrong.
    """
    with edge(as_json, debug):
        from sslpurify import run

        answer = run.inspect(checkpoint, arch, allow_torchscript=bool(allow_torchscript))
        show(answer, as_json)
        if answer.data["problems"]:
            raise typer.Exit(CheckpointError.exit_code)


@app.command()
def purify(
    checkpoint: Checkpoint = None,
    arch: Arch = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Clean images: a folder, a CSV or TSV with captions, webdataset tars."),
    ] = None,
    dataset_type: Annotated[
        str | None,
        typer.Option(help="auto, images, csv, webdataset, class-folders.  [default: auto]"),
    ] = None,
    csv_img_key: Annotated[
        str | None, typer.Option(help="Column of image paths.  [default: filepath]")
    ] = None,
    csv_caption_key: Annotated[
        str | None, typer.Option(help="Column of captions.  [default: title]")
    ] = None,
    csv_separator: Annotated[
        str | None, typer.Option(help="Between columns; found out unless given.")
    ] = None,
    max_bad_fraction: MaxBadFraction = None,
    out: Out = None,
    resume: Resume = False,
    report_to: Annotated[
        str | None, typer.Option(help="tensorboard draws the losses too.  [default: none]")
    ] = None,
    method: Annotated[str | None, typer.Option(help="The method.  [default: tsc]")] = None,
    config: Config = None,
    settings: Set = None,
    seed: Seed = None,
    device: Device = None,
    image_mean: Mean = None,
    image_std: Std = None,
    image_size: Size = None,
    quick_gelu: QuickGelu = None,
    text_from: TextFrom = None,
    tokenizer: Tokenizer = None,
    allow_torchscript: AllowTorchscript = None,
    as_json: Json = False,
    debug: Debug = False,
    verbose: Verbose = None,
) -> None:
    """Take the backdoor out of an encoder.

    A few clean images suffice; neither labels nor anything about the attack is needed.
    """
    flags = recipe_keys(locals())
    with edge(as_json, debug), telling(verbose) as listener:
        from sslpurify import recipe, run

        wanted = recipe.load(recipe.PurifyRecipe, config, settings=settings or (), flags=flags)
        show(run.purify(wanted, listener, resume=resume), as_json)


@app.command()
def evaluate(
    checkpoint: Checkpoint = None,
    before: Annotated[Path | None, typer.Option(help="The file before purification.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="A never attacked file: its ASR is the yardstick.")
    ] = None,
    arch: Arch = None,
    train: Annotated[
        Path | None, typer.Option(help="The probe's images, a folder for each class.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="The images to classify, a folder for each class.")
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option(help="The trigger: npz, picture, YAML, a built-in name, {kind: …}."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The trigger's class, by name.")] = None,
    probes: Annotated[
        str | None,
        typer.Option(
            "--probe", help="knn, linear, mlp, zeroshot; several by commas.  [default: knn]"
        ),
    ] = None,
    sweep: Annotated[
        Path | None,
        typer.Option(help="Folder of a finished purification: measure along its curves, too."),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(help="Images of each class that the probes learn from.  [default: all]"),
    ] = None,
    classnames: Annotated[
        str | None,
        typer.Option(help="For zeroshot: a set's name (cifar10, ...) or a file, a name a line."),
    ] = None,
    prompt_templates: Annotated[
        str | None, typer.Option(help="For zeroshot: a set's name or a file, a template a line.")
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Show the rates of every class, too.")
    ] = False,
    protocol: Annotated[
        str | None, typer.Option(help="exclude-target or all.  [default: exclude-target]")
    ] = None,
    out: Out = None,
    config: Config = None,
    settings: Set = None,
    seed: Seed = None,
    device: Device = None,
    image_mean: Mean = None,
    image_std: Std = None,
    image_size: Size = None,
    quick_gelu: QuickGelu = None,
    text_from: TextFrom = None,
    tokenizer: Tokenizer = None,
    allow_torchscript: AllowTorchscript = None,
    as_json: Json = False,
    debug: Debug = False,
    verbose: Verbose = None,
) -> None:
    """Measure clean accuracy and attack success rate.

    Of the encoder, and beside it of the one before purification and one never attacked.
    """
    flags = recipe_keys(locals())
    with edge(as_json, debug), telling(verbose) as listener:
        from sslpurify import recipe, run

        wanted = recipe.load(
            recipe.EvaluateRecipe,
            config,
            settings=settings or (),
            flags=flags,
            defaults=run.described(sweep) if sweep else None,
        )
        show(run.evaluate(wanted, listener, per_class=per_class), as_json)


@app.command()
def aggregate(
    files: Annotated[
        list[Path], typer.Argument(help="What `evaluate --json` printed.", metavar="FILE...")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Put evaluations of runs with different seeds together.

    Mean, standard deviation and range of every rate.
    """
    with edge(as_json, debug):
        from sslpurify import run

        show(run.aggregate(files), as_json)


@app.command()
def attack(
    recipe_file: Annotated[Path, typer.Argument(help="An attack recipe.", metavar="RECIPE.yaml")],
    picture: Annotated[
        Path | None, typer.Argument(help="Where --show draws.", metavar="[PICTURE.png]")
    ] = None,
    draw: Annotated[
        bool, typer.Option("--show", help="Only draw what the trigger does to images.")
    ] = False,
    resume: Resume = False,
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
    with edge(as_json, debug), telling(verbose) as listener:
        from sslpurify import recipe, run

        wanted = recipe.load(recipe.AttackRecipe, recipe_file, settings=settings or (), flags=flags)
        if picture is not None and not draw:
            raise ConfigError(f"{picture}: a picture is what --show draws; add --show")
        if draw:
            show(run.show_trigger(wanted, picture, listener), as_json)
            return
        show(run.attack(wanted, listener, resume=resume), as_json)


@app.command()
def pretrain(
    recipe_file: Annotated[Path, typer.Argument(help="A recipe.", metavar="RECIPE.yaml")],
    resume: Resume = False,
    settings: Set = None,
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
    verbose: Verbose = None,
) -> None:
    """Train an encoder from scratch, to attack and to practise on."""
    flags = {"seed": seed, "device": device}
    with edge(as_json, debug), telling(verbose) as listener:
        from sslpurify import recipe, run

        wanted = recipe.load(
            recipe.PretrainRecipe, recipe_file, settings=settings or (), flags=flags
        )
        show(run.pretrain(wanted, listener, resume=resume), as_json)


@recipes.command("list")
def recipe_list(as_json: Json = False, debug: Debug = False) -> None:
    """Name the shipped recipes and what each is for."""
    with edge(as_json, debug):
        from sslpurify import run

        show(run.list_recipes(), as_json)


@recipes.command("show")
def recipeshow(
    name: Annotated[str, typer.Argument(help="A name from `recipe list`.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print a shipped recipe."""
    with edge(as_json, debug):
        from sslpurify import run

        show(run.show_recipe(name), as_json)


@recipes.command("check")
def recipe_check(
    files: Annotated[list[Path], typer.Argument(help="Recipe files.", metavar="FILE...")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say everything that is wrong with a recipe."""
    with edge(as_json, debug):
        from sslpurify import run

        show(run.check_recipes(files), as_json)


@recipes.command("copy")
def recipe_copy(
    name: Annotated[str, typer.Argument(help="A name from `recipe list`.")],
    to: Annotated[Path, typer.Argument(help="The new file, or a folder for it.")] = Path(),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy a shipped recipe, to change it."""
    with edge(as_json, debug):
        from sslpurify import run

        show(run.copy_recipe(name, to), as_json)


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say what this machine offers to a run.

    Versions, devices, faiss, shared memory.
    """
    with edge(as_json, debug):
        from sslpurify import run

        show(run.doctor(), as_json)


def main() -> None:
    """Run the command line and exit with the documented code."""
    with heeded(lambda text: typer.echo(f"sslpurify: {text}", err=True)):
        app()
