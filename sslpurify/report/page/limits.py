"""What a report can and cannot show, in plain words."""

from sslpurify.report.page.elements import Section
from sslpurify.report.page.wording import Record, per_cent

_UNMEASURED = (
    "This run saw neither labels nor a trigger, so it cannot say whether a backdoor was there or "
    "is gone. Measure the result with sslpurify evaluate, with every trigger that you know or "
    "suspect."
)
_ONE_SEED = (
    "All numbers come from one seed and one set of images. Another probe, data set or task built "
    "on the encoder may see something else."
)
_YARDSTICK = (
    "The rate of the encoder that was never attacked is the yardstick: what ordinary mistakes give "
    "without any backdoor. A purified encoder may lie above it or below."
)
_NO_YARDSTICK = (
    "No encoder that was never attacked was measured. Any encoder takes some images with the "
    "trigger for the target, so how low the rate could be is not known here."
)
_NO_BEFORE = (
    "The encoder before purification was not measured: whether there was a backdoor, and what "
    "its removal cost, is not known here."
)
_PAIRED = (
    "Whether purification changed a rate is told by the difference on the same images and its own "
    "interval, not by whether the intervals of the two rates overlap."
)
_MAP = (
    "The map shows two directions of many, and some of the images. It illustrates the rates and "
    "proves nothing."
)
_PURIFIED = (
    "The purification lowers the effect of a backdoor at the price of some clean accuracy. It "
    "rests on clean images that are clean, and that look like what the encoder was trained on."
)
_STRANGERS = (
    "Names and pictures on this page come from the files that were read. The page is made of "
    "report.json beside it; compare the hashes before you rely on either."
)


def limits(record: Record) -> list[Section]:
    """The limits of what this record holds."""
    items = [
        *_of_rates(record),
        *([_MAP] if record.get("map") is not None else []),
        *_of_neighbours(record),
        *([_PURIFIED] if record.get("stages") else []),
        _STRANGERS,
    ]
    return [Section("limits", "What this can and cannot show", items=tuple(items))]


def _of_rates(record: Record) -> list[str]:
    if "results" not in record:
        return [_UNMEASURED]
    asked = next(row for row in record["results"] if row["which"] == "after")
    accuracy, success = asked["clean_accuracy"], asked["attack_success_rate"]
    items = [_width("Clean accuracy", accuracy), _ONE_SEED]
    if success is None:
        return items
    seen = {row["which"] for row in record["results"]}
    return [
        items[0],
        _width("The attack success rate", success),
        items[1],
        _only(record["trigger"]),
        _YARDSTICK if "reference" in seen else _NO_YARDSTICK,
        _PAIRED if "before" in seen else _NO_BEFORE,
    ]


def _width(what: str, rate: Record) -> str:
    low, high = (f"{100 * rate[end]:.1f}" for end in ("low", "high"))
    return (
        f"{what} is counted on {rate['n']:,} images. The {per_cent(rate)} % of the encoder asked "
        f"about stand for anything from {low} to {high} % of all such images (95 % interval)."
    )


def _only(trigger: Record) -> str:
    return (
        f"Only the trigger “{trigger['name']}” towards “{trigger['target']}” was tested. A low "
        "rate says nothing about another trigger, another target class, or a second backdoor "
        "beside this one; it does not certify the encoder."
    )


def _of_neighbours(record: Record) -> list[str]:
    if record.get("neighbours") is None:
        return []
    count = len(record["neighbours"]["strips"])
    return [f"The nearest neighbours are those of {count} images: examples, no measurement."]
