"""The parts of a page that tell what a result was made of and how."""

from sslpurify.report.page.elements import Cell, Folded, Section, Table
from sslpurify.report.page.wording import ENCODERS, Record

_SETS = {"test": "test images", "train": "images of the probes' bank"}


def configuration(record: Record) -> list[Section]:
    """The resolved recipes."""
    recipes = {"This run": record["origin"]["recipe"]}
    if "purification" in record:
        recipes["The purification that made the checkpoint"] = record["purification"]["recipe"]
    folded = tuple(Folded(title, texts=(text,)) for title, text in recipes.items())
    text = "All settings as they were resolved; as a recipe they make the same again on a CPU."
    return [Section("configuration", "Configuration", paragraphs=(text,), folded=folded)]


def provenance(record: Record) -> list[Section]:
    """Hashes of inputs and output, versions, seed, device."""
    origin = record["origin"]
    head = ("what", "which")
    inputs = Table("Inputs and outputs with their SHA-256", head, tuple(_files(record)))
    facts = {key: origin[key] for key in ("seed", "device", "precision") if key in origin}
    versions = tuple(
        (Cell(name), Cell(str(value))) for name, value in {**facts, **origin["versions"]}.items()
    )
    machine = Folded("Machine and versions", (Table("Made with", ("what", "value"), versions),))
    return [Section("provenance", "Provenance", tables=(inputs,), folded=(machine,))]


def _files(record: Record) -> list[tuple[Cell, Cell]]:
    origin, rows = record["origin"], list[tuple[Cell, Cell]]()
    if "output" in record:
        rows.append((Cell("purified checkpoint"), Cell(record["output"], record["sha256"])))
    if origin.get("parent") is not None:
        rows.append((Cell("suspect"), Cell(origin["parent"]["file"], origin["parent"]["sha256"])))
    for which, file in origin.get("checkpoints", {}).items():
        rows.append((Cell(f"checkpoint, {ENCODERS[which]}"), Cell(file["file"], file["sha256"])))
    if "data" in origin:
        count, size, sha256 = (origin["data"][key] for key in ("images", "size", "sha256"))
        rows.append((Cell("clean images"), Cell(f"{count:,} of {size} × {size} pixels", sha256)))
    for name, sha256 in origin.get("images", {}).items():
        rows.append((Cell(_SETS[name]), Cell("their pixels", sha256)))
    if record.get("trigger") is not None:
        trigger = record["trigger"]
        rows.append(
            (Cell("trigger"), Cell(trigger["name"], trigger["sha256"] or trigger["description"]))
        )
    return rows
