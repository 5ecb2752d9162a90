"""The options that several commands share, spelled as open_clip spells them."""

from pathlib import Path
from typing import Annotated

import typer

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
QuickGelu = Annotated[
    bool | None,
    typer.Option(
        "--force-quick-gelu/--no-force-quick-gelu",
        help="Activation of an open_clip model, where its name leaves it open.",
        show_default=False,
    ),
]
TextFrom = Annotated[
    Path | None, typer.Option(help="Checkpoint whose text tower is used, if this one has none.")
]
Tokenizer = Annotated[
    Path | None, typer.Option(help="Folder with the tokenizer's files, if none is at hand.")
]
AllowTorchscript = Annotated[
    bool | None,
    typer.Option(
        "--allow-torchscript",
        help="Take the weights out of a TorchScript archive, whose program is kept and never run.",
        show_default=False,
    ),
]
MaxBadFraction = Annotated[
    float | None,
    typer.Option(help="Share of unreadable images that are left out.  [default: 0.01]"),
]
Size = Annotated[
    int | None, typer.Option("--force-image-size", help="Side of the images in pixels.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what an interrupted run left in --out.")
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
