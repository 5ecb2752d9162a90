from sslpurify.probes import Change, Rate
from sslpurify.report import (
    Changes,
    ClassRates,
    Evaluation,
    Row,
    classes_table,
    evaluation_table,
    grid,
    inspection_table,
    stages_table,
)


def test_rates_are_per_cent_with_interval_count_and_protocol() -> None:
    rows = (
        Row("before", "knn", Rate(0.4931, 0.471, 0.515, 2000), Rate(0.997, 0.993, 0.999, 1800)),
        Row("after", "linear", Rate(1.0, 0.998, 1.0, 2000), None),
    )
    table = evaluation_table(
        Evaluation(rows, "exclude-target", 12.0), {"before": "before (victim.pt)"}
    )
    heads, _, first, second, note = table.splitlines()
    assert heads.split("  ")[0] == "encoder"
    assert "before (victim.pt)" in first
    assert "49.3 [47.1, 51.5] n=2000" in first
    assert "99.7 [99.3, 99.9] n=1800" in first
    assert "100.0 [99.8, 100.0] n=2000" in second
    assert second.endswith("-")
    assert "target class left out" in note


def test_a_change_is_in_points_with_its_interval_and_p() -> None:
    rows = (Row("after", "knn", Rate(0.5, 0.4, 0.6, 9), Rate(0.1, 0.0, 0.2, 8)),)
    changes = Changes(
        "knn",
        Change(-0.019, -0.0262, -0.0118, 2000, 80, 42, 0.0005),
        Change(0.0125, -0.01, 0.03, 1800, 1, 2, 0.62549),
    )
    lines = evaluation_table(Evaluation(rows, "all", 0.0, (changes,))).splitlines()
    assert lines[3].split("  ")[0] == "after less before"
    assert "  -1.9 [-2.6, -1.2] p<0.001" in lines[3]
    assert lines[3].endswith("  +1.2 [-1.0, +3.0] p=0.625")
    assert "McNemar" in lines[4]


def test_every_class_is_shown_by_probe_and_encoder() -> None:
    half, none = Rate(0.5, 0.4, 0.6, 9), None
    rows = tuple(
        Row(
            which, probe, half, half, (ClassRates("ant", half, half), ClassRates("bee", half, none))
        )
        for probe in ("knn", "mlp")
        for which in ("before", "after")
    )
    first, second, note = classes_table(Evaluation(rows, "all", 0.0)).split("\n\n")
    assert [line.split("  ")[0] for line in first.splitlines()[2:]] == ["ant", "bee"]
    assert first.splitlines()[0].split() == ["class,", "knn", "n", "before", "after"]
    assert first.splitlines()[3].split() == ["bee", "9", "50.0", "/", "-", "50.0", "/", "-"]
    assert second.startswith("class, mlp")
    assert "per cent" in note


def test_without_a_trigger_there_is_no_such_column() -> None:
    rows = (Row("after", "knn", Rate(0.5, 0.4, 0.6, 9), None),)
    table = evaluation_table(Evaluation(rows, "all", 0.0))
    assert "attack" not in table


def test_columns_line_up() -> None:
    assert grid(["a", "bb"], [["xxx", "y"]]) == "a    bb\n---  --\nxxx  y"
    assert grid([], [["a", "b"], ["cc", "d"]]) == "a   b\ncc  d"


def test_stages_without_a_curve_have_no_t() -> None:
    stages = [
        {"name": "projection head", "t": None, "loss": [2.0, 1.5], "seconds": 1.0},
        {"name": "round 1 · stage 1", "t": 0.25, "loss": [3.0, 2.5], "seconds": 61.25},
    ]
    lines = stages_table(stages).splitlines()
    assert lines[2].split() == ["projection", "head", "2.000", "→", "1.500", "1.0", "s"]
    assert "0.25" in lines[3]


def test_an_inspection_lists_its_problems() -> None:
    table = inspection_table(
        {
            "format": "torch-zip",
            "architecture": None,
            "confidence": 0.0,
            "groups": [],
            "ignored": [f"t{number}" for number in range(7)],
            "problems": ["one", "two"],
            "wrapper": "state_dict",
            "prefix": "module.",
            "parameters": 1000,
            "dtypes": {"float32": 6, "int64": 1},
            "decisions": ["kept \x1b[31m"],
            "warnings": ["zeros"],
            "next": "sslpurify purify x",
        }
    )
    assert "state_dict.module.*, 6 float32, 1 int64, 1,000 numbers" in table
    assert r"kept \x1b[31m" in table
    assert table.splitlines()[-1].split(maxsplit=1) == ["next", "sslpurify purify x"]
    assert "none fits" in table
    assert "t4, and 2 more" in table
    assert [line.split()[1] for line in table.splitlines() if line.startswith("problem ")] == [
        *("one", "two")
    ]
