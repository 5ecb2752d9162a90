import errno
import os
from pathlib import Path

import pytest

from sslpurify.errors import ConfigError, TrainingError
from sslpurify.run.output import staged, unused
from tests import pico


def test_a_folder_appears_whole_and_readable(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "down"
    with staged(out) as folder:
        (folder / "a").write_text("x")
        assert not out.parent.exists()
    assert pico.trees(tmp_path) == {"deep", "deep/down", "deep/down/a"}
    assert out.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert pico.trees(tmp_path) == {"out", "out/a"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path, error: type[BaseException]) -> None:
    def run() -> None:
        with staged(tmp_path / "deep" / "out") as folder:
            (folder / "a").write_text("x")
            raise error

    with pytest.raises(error):
        run()
    assert pico.trees(tmp_path) == set()


def test_a_folder_with_another_run_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not empty"), staged(tmp_path):
        pass
    with pytest.raises(ConfigError, match="is a file"), staged(tmp_path / "report.json"):
        pass
    assert pico.trees(tmp_path) == {"report.json"}


def test_a_folder_inside_what_is_read_is_refused_through_links_too(tmp_path: Path) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    for out in (data, data / "out", link / "out", tmp_path / "x" / ".." / "data" / "out"):
        with (
            pytest.raises(ConfigError, match="which is only read"),
            staged(out, outside=[None, data]),
        ):
            pass
    with staged(tmp_path / "database", outside=[None, data]):
        pass


def test_a_full_disk_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="No space left"), staged(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert pico.trees(tmp_path) == set()


def test_the_next_free_name(tmp_path: Path) -> None:
    assert unused(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert unused(tmp_path / "demo") == tmp_path / "demo-3"
