"""The attack gallery: makes each victim, purifies it with the defaults and measures what is left.

    sslpurify pretrain recipes/pretrain/clip_rn_cifar10.yaml         # the CLIPs that are attacked
    sslpurify pretrain recipes/pretrain/clip_vit_cifar10.yaml
    python benchmarks/reproduce/gallery.py run                       # all rows, seeds 0 and 1
    python benchmarks/reproduce/gallery.py run ctrl patches --seed 2
    python benchmarks/reproduce/gallery.py table --write benchmarks/reproduce/gallery.md

Every step is a command of ``sslpurify`` with the recipe of the row's name. What is finished is not
done again, and an interrupted row goes on where it was; several processes may share the rows. A row
whose victim misses its gate stays in the table and says so.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sslpurify.errors import GateError
from sslpurify.recipe import AttackRecipe, load

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__)
Out = Annotated[Path, typer.Option(help="Where the runs are kept.")]
RUNS = Path("runs/gallery")


@dataclass(frozen=True)
class Victim:
    """A row of the gallery, by the names of its recipes.

    Args:
        attack: Under ``recipes/attack``.
        purify: Under ``recipes/purify``.
        evaluate: Under ``recipes/evaluate``.
    """

    attack: str
    purify: str
    evaluate: str


def _simclr(attack: str) -> Victim:
    model = "simclr_resnet18_cifar10"
    return Victim(f"{attack}_{model}", f"tsc_{model}", f"knn_{model}")


def _clip(attack: str, tower: str = "rn") -> Victim:
    model = f"clip_{tower}_cifar10"
    return Victim(f"{attack}_{model}", f"tsc_{model}", f"zeroshot_{model}")


ROWS = {
    "badencoder": _simclr("badencoder"),
    "ctrl": _simclr("ctrl"),
    "patches": _simclr("patches"),
    "badencoder-rn": _clip("badencoder"),
    "badencoder-vit": _clip("badencoder", "vit"),
    "badnets": _clip("pairs-badnets"),
    "blended": _clip("pairs-blended"),
    "sig": _clip("pairs-sig"),
    "wanet": _clip("pairs-wanet"),
    "badclip": _clip("badclip"),
}


@app.command()
def run(
    rows: Annotated[list[str] | None, typer.Argument(help="All rows unless given.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="0 and 1 unless given.")] = None,
    out: Out = RUNS,
) -> None:
    """Make, purify and measure the victims, one after another."""
    for number in seed or [0, 1]:
        for name in rows or ROWS:
            _row(ROWS[name], number, out / name / f"seed-{number}")


def _row(row: Victim, seed: int, out: Path) -> None:
    attack = Path(f"recipes/attack/{row.attack}.yaml")
    victim = _told(out / "attack.json", "attack", str(attack), seed=seed, out=out / "victim")
    if "error" in victim:
        return
    purified = _told(
        out / "purify.json", "purify", "--config", f"recipes/purify/{row.purify}.yaml",
        seed=seed, out=out / "purified", checkpoint=victim["output"],
    )  # fmt: skip
    made = load(AttackRecipe, attack)
    probes = {"probes": "[knn, linear]"} if row.evaluate.startswith("knn") else {}
    _told(
        out / "evaluate.json", "evaluate", "--config", f"recipes/evaluate/{row.evaluate}.yaml",
        seed=seed, out=out / "measured", checkpoint=purified["output"], before=victim["output"],
        reference=made.checkpoint, target=made.target,
        trigger=victim.get("trigger", made.trigger), **probes,
    )  # fmt: skip


def _told(answer: Path, *command: str, seed: int, **settings: object) -> dict[str, Any]:
    """What a command of sslpurify answers, kept in a file; an ``error`` if a gate was missed."""
    if not answer.exists():
        pairs = [f"--set={key}={value}" for key, value in settings.items()]
        resume = [] if command[0] == "evaluate" else ["--resume"]
        line = [sys.executable, "-m", "sslpurify", *command, f"--seed={seed}", *pairs, *resume]
        print(answer, "...", file=sys.stderr, flush=True)
        done = subprocess.run([*line, "--json"], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != GateError.exit_code:
            done.check_returncode()
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.write_text(done.stdout, "utf-8")
    return json.loads(answer.read_text("utf-8"))


@app.command()
def table(
    out: Out = RUNS,
    write: Annotated[Path | None, typer.Option(help="A Markdown file; else printed.")] = None,
) -> None:
    """Draw the table of all that is finished."""
    lines = [line for name in ROWS for line in _lines(name, out / name)]
    heads = ["victim", "seed", "probe", "before", "after", "never poisoned", "seconds"]
    rule = ["---"] * len(heads)
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in [heads, rule, *lines])
    if write is None:
        print(text, end="")
    else:
        write.write_text(f"{_HEAD}\n{text}", "utf-8")


_HEAD = """# The attack gallery

Clean accuracy / attack success rate in per cent, with 95 % intervals (Wilson): of the encoder that
the row's recipe poisoned, the same purified with the defaults, and the clean encoder that the
attack began with. CIFAR-10, 10,000 test images; attack success rates on the 9,000 that are not of
the target class (exclude-target). Seconds: of the process that finished the purification, on one of
two shared cores; a row that was interrupted took longer.
Written by `python benchmarks/reproduce/gallery.py table`.
"""


def _lines(name: str, folder: Path) -> Iterator[list[str]]:
    for seed in sorted(folder.glob("seed-*")):
        victim, measured = seed / "attack.json", seed / "evaluate.json"
        number = seed.name.removeprefix("seed-")
        if victim.exists() and "error" in (missed := json.loads(victim.read_text("utf-8"))):
            yield [name, number, "", " ".join(missed["error"].split()), "", "", ""]
        if not measured.exists():
            continue
        results = json.loads(measured.read_text("utf-8"))["results"]
        seconds = json.loads((seed / "purify.json").read_text("utf-8"))["seconds"]
        for probe in dict.fromkeys(row["probe"] for row in results):
            rows = {row["which"]: row for row in results if row["probe"] == probe}
            shown = [_both(rows[which]) for which in ("before", "after", "reference")]
            yield [name, number, probe, *shown, f"{seconds:.0f}"]


def _both(row: dict[str, Any]) -> str:
    return " / ".join(_shown(row[rate]) for rate in ("clean_accuracy", "attack_success_rate"))


def _shown(rate: dict[str, Any]) -> str:
    value, low, high = (100 * rate[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    app()
