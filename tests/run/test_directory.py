import errno
import os
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sslpurify.errors import ConfigError, TrainingError
from sslpurify.run.directory import RunDirectory, run_directory, unused
from sslpurify.types import silent
from tests import pico


def opened(
    out: Path, *, resume: bool = False, outside: Collection[Path | None] = ()
) -> AbstractContextManager[RunDirectory]:
    return run_directory(out, listener=silent, resume=resume, outside=outside)


def test_results_appear_together_and_the_report_last(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "down"
    with opened(out) as run:
        with run.results() as folder:
            (folder / "a").write_text("x")
            (folder / "report.json").write_text("{}")
            (folder / "z").mkdir()
            assert not (out / "a").exists()
        assert pico.trees(out) == {"a", "z", "report.json"}
        assert (out / "report.json").stat().st_ctime_ns >= (out / "z").stat().st_ctime_ns
    assert pico.trees(out) == {"a", "z", "report.json"}


def test_an_empty_folder_is_taken_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="no"), opened(tmp_path / "out"):
        raise ValueError("no")
    assert pico.trees(tmp_path) == {"out"}


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "out"),
        pytest.raises(ConfigError, match="another process is at work"),
        opened(tmp_path / "out"),
    ):
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path, error: type[BaseException]) -> None:
    def run() -> None:
        with opened(tmp_path / "deep" / "out") as opened_run, opened_run.results() as folder:
            (folder / "a").write_text("x")
            raise error

    with pytest.raises(error):
        run()
    assert pico.trees(tmp_path) == set()


def test_a_folder_with_another_run_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not empty"), opened(tmp_path):
        pass
    with pytest.raises(ConfigError, match="is a file"), opened(tmp_path / "report.json"):
        pass
    with pytest.raises(ConfigError, match="is not empty"), opened(tmp_path, resume=True):
        pass
    assert pico.trees(tmp_path) == {"report.json"}


def test_a_folder_inside_what_is_read_is_refused_through_links_too(tmp_path: Path) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    for out in (data, data / "out", link / "out", tmp_path / "x" / ".." / "data" / "out"):
        with (
            pytest.raises(ConfigError, match="which is only read"),
            opened(out, outside=[None, data]),
        ):
            pass
    with opened(tmp_path / "database", outside=[None, data]):
        pass


def test_a_full_disk_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="No space left"), opened(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert pico.trees(tmp_path) == set()


def test_the_next_free_name(tmp_path: Path) -> None:
    assert unused(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert unused(tmp_path / "demo") == tmp_path / "demo-3"
