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
from sslpurify.recipe import AttackRecipe, EvaluateRecipe, PurifyRecipe, load

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__)
Out = Annotated[Path, typer.Option(help="Where the runs are kept.")]
RUNS = Path("runs/gallery")
Recipe = AttackRecipe | PurifyRecipe | EvaluateRecipe


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


def _simclr(attack: str, network: str = "resnet18") -> Victim:
    model = f"simclr_{network}_cifar10"
    return Victim(f"{attack}_{model}", f"tsc_{model}", f"knn_{model}")


def _clip(attack: str, tower: str = "rn") -> Victim:
    model = f"clip_{tower}_cifar10"
    return Victim(f"{attack}_{model}", f"tsc_{model}", f"zeroshot_{model}")


ROWS = {
    "badencoder": _simclr("badencoder"),
    "ctrl": _simclr("ctrl", "resnet18-w16"),
    "patches": _simclr("patches", "resnet18-w16"),
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
    made = load(AttackRecipe, _file(AttackRecipe, row.attack))
    victim = _told(AttackRecipe, row.attack, seed, out, out=out / "victim")
    if "error" in victim:
        return
    checkpoint = victim["output"]
    purified = _told(
        PurifyRecipe, row.purify, seed, out, out=out / "purified", checkpoint=checkpoint
    )
    probes = {"probes": "[knn, linear]"} if row.evaluate.startswith("knn") else {}
    _told(
        EvaluateRecipe, row.evaluate, seed, out, out=out / "measured",
        checkpoint=purified["output"], before=checkpoint, reference=made.checkpoint,
        target=made.target, trigger=victim.get("trigger", made.trigger), **probes,
    )  # fmt: skip


def _told(
    kind: type[Recipe], name: str, seed: int, folder: Path, **settings: object
) -> dict[str, Any]:
    """What sslpurify answers, kept with what it was asked; an ``error`` if a gate was missed."""
    file = _file(kind, name)
    recipe = load(kind, file)
    kept = folder / f"{recipe.verb}.json"
    pairs = [f"--set={key}={value}" for key, value in settings.items()]
    asked = {"recipe": recipe.model_dump(mode="json"), "seed": seed, "settings": pairs}
    if not kept.exists():
        line = [
            *(sys.executable, "-m", "sslpurify", recipe.verb),
            *([] if kind is AttackRecipe else ["--config"]),
            str(file),
            *(f"--seed={seed}", *pairs, "--json"),
            *([] if kind is EvaluateRecipe else ["--resume"]),
        ]
        print(kept, "...", file=sys.stderr, flush=True)
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != GateError.exit_code:
            done.check_returncode()
        folder.mkdir(parents=True, exist_ok=True)
        answer = json.loads(done.stdout)
        kept.write_text(json.dumps({"asked": asked, "answer": answer}, indent=1), "utf-8")
    earlier = json.loads(kept.read_text("utf-8"))
    if earlier["asked"] != asked:
        raise SystemExit(f"{kept}: its recipe was another one; move {folder} away to measure anew")
    return earlier["answer"]


def _file(kind: type[Recipe], name: str) -> Path:
    return Path("recipes") / kind.model_fields["verb"].default / f"{name}.yaml"


@app.command()
def table(
    out: Out = RUNS,
    write: Annotated[Path | None, typer.Option(help="A Markdown file; else printed.")] = None,
) -> None:
    """Draw the table of all that is finished."""
    lines = [line for name in ROWS for line in _lines(name, out / name)]
    heads = ["victim", "seed", "probe", "before", "after", "never poisoned", "seconds", "on"]
    rule = ["---"] * len(heads)
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in [heads, rule, *lines])
    if write is None:
        print(text, end="")
    else:
        write.write_text(f"{_HEAD}\n{text}", "utf-8")


_HEAD = """# The attack gallery

Clean accuracy / attack success rate in per cent, with 95 % intervals (Wilson): of the encoder that
the row's recipe poisoned, the same purified with the defaults, and the clean encoder that the
recipe names, which the seeds share: the attack began with it, or was made as it was, from scratch
(ctrl, patches). The seed is that of attack, purification and probes. CIFAR-10, 10,000 test images;
attack success rates on the 9,000 that are not of the target class (exclude-target). Seconds: of the
process that finished the purification; a row that was interrupted took longer. On "cpu" one of two
shared cores in float32, on "cuda" an H200 that several rows shared, in bfloat16.
Written by `python benchmarks/reproduce/gallery.py table`.
"""


def _lines(name: str, folder: Path) -> Iterator[list[str]]:
    for seed in sorted(folder.glob("seed-*")):
        told = {file.stem: json.loads(file.read_text("utf-8")) for file in seed.glob("*.json")}
        answers = {verb: each["answer"] for verb, each in told.items()}
        number = seed.name.removeprefix("seed-")
        if "error" in answers.get("attack", {}):
            yield [name, number, "", " ".join(answers["attack"]["error"].split()), "", "", "", ""]
        if "evaluate" not in answers:
            continue
        results, seconds = answers["evaluate"]["results"], answers["purify"]["seconds"]
        device = answers["evaluate"]["origin"]["device"]
        for probe in dict.fromkeys(row["probe"] for row in results):
            rows = {row["which"]: row for row in results if row["probe"] == probe}
            shown = [_both(rows[which]) for which in ("before", "after", "reference")]
            yield [name, number, probe, *shown, f"{seconds:.0f}", device]


def _both(row: dict[str, Any]) -> str:
    return " / ".join(_shown(row[rate]) for rate in ("clean_accuracy", "attack_success_rate"))


def _shown(rate: dict[str, Any]) -> str:
    value, low, high = (100 * rate[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    app()
