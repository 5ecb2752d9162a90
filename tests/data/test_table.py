import contextlib
import csv
import io
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslpurify.data import read_pairs
from sslpurify.data.captions import Pair
from sslpurify.data.table import MAX_RECORD, Table
from sslpurify.errors import ConfigError, DataError, SslPurifyError, UnsafeInputError
from tests.data.pictures import write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a table's images a.png and b.png, and a secret beside it."""
    write_picture(tmp_path / "data/a.png", 1)
    write_picture(tmp_path / "data/b.png", 2)
    write_picture(tmp_path / "secret.png", 3)
    return tmp_path / "data"


def table(folder: Path, content: str | bytes, name: str = "t.csv", separator=None) -> Table:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table(path, "filepath", "title", separator)


def captions(found: Table) -> list[str]:
    return [pair.captions[0] for pair in found.pick(range(len(found))) if isinstance(pair, Pair)]


@pytest.mark.parametrize(
    "content",
    [
        "filepath,title\na.png,one\nb.png,two\n",
        "filepath,title\na.png,one\nb.png,two",
        "\ufefffilepath,title\r\na.png,one\r\nb.png,two\r\n",
        "\n\nfilepath,title\n\na.png,one\n\n\nb.png,two\n\n",
        'title,"id","filepath"\none,5,a.png\n"two","","b.png"\n',
        "filepath\ttitle\na.png\tone\nb.png\ttwo\n",
        "filepath,title\n./a.png, one \nx/../b.png,\ttwo\n",
    ],
)
def test_the_shapes_a_table_comes_in(folder: Path, content: str):
    for name in ("t.csv", "t.tsv"):
        found = table(folder, content, name)
        assert len(found) == 2
        assert [(pair.source, pair.captions) for pair in found.pick([0, 1])] == [
            (folder / "a.png", ("one",)),
            (folder / "b.png", ("two",)),
        ]
        assert [pair.captions for pair in found.pick([1])] == [("two",)]


def test_captions_stay_text(folder: Path):
    texts = [
        "NaN",
        "123",
        "1e5",
        "None",
        "NULL",
        "True",
        "#N/A",
        'say "hi"',
        "a,\r\nb",
        "日本 🦉",
        "-",
    ]
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["filepath", "title"], *(["a.png", text] for text in texts)])
    assert captions(table(folder, buffer.getvalue())) == texts


def test_quotes_within_a_field_are_kept_as_pandas_keeps_them(folder: Path):
    found = table(folder, 'filepath\ttitle\na.png\ta 12" disc, "new"\n')
    assert captions(found) == ['a 12" disc, "new"']


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=6
    ),
    st.sampled_from(",\t;|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)
def test_what_csv_writes_is_read_back(tmp_path_factory, texts, separator, end, mark):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["title", "filepath"], *([text, "a.png"] for text in texts)])
    found = table(tmp_path_factory.getbasetemp(), mark + buffer.getvalue(), separator=separator)
    assert captions(found) == [text.strip() for text in texts]


def test_missing_columns_are_told_with_those_there_are(folder: Path):
    with pytest.raises(
        DataError,
        match=r"not one column 'filepath' and one 'title' but 'url', 'cap\\x1btion': name its "
        "columns with --csv-img-key and --csv-caption-key",
    ):
        table(folder, "url,cap\x1btion\na.png,one\n")
    with pytest.raises(DataError, match="not one column 'title' but 'filepath', 'title', 'title'"):
        table(folder, "filepath,title,title\na.png,one,two\n")
    with pytest.raises(DataError, match="but none at all"):
        table(folder, "")
    with pytest.raises(DataError, match="but 'filepath;title'"):
        table(folder, "filepath;title\na.png;one\n")
    assert len(table(folder, "filepath;title\na.png;one\n", separator=";")) == 1


def test_senseless_settings_are_refused(folder: Path):
    for separator in ("", ",,", '"', "\n", "\r", "\0"):
        with pytest.raises(ConfigError, match="must be one character"):
            table(folder, "filepath,title\n", separator=separator)
    with pytest.raises(ConfigError, match="both be in column 'a'"):
        Table(folder / "t.csv", "a", "a")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png,one\nb.png,\n", "row 3: the caption is empty"),
        ("a.png,one\nb.png, \t\n", "row 3: the caption is empty"),
        (",one\n", "row 2: the path of the image is empty"),
        ("a.png\n", "row 2: has 1 fields, the header 2: quote fields"),
        ("a.png,one, two\n", "row 2: has 3 fields, the header 2: quote fields"),
        ('a.png,"one\nb.png,two\n', "row 2: a quotation mark is never closed"),
        ("a.png,one\rb.png,two\n", "row 2: new-line character"),
        (f"a.png,{'x' * (2**16 + 1)}\n", "row 2: the caption is longer than 65,536"),
    ],
)
def test_a_row_that_is_no_pair_is_named(folder: Path, rows: str, message: str):
    with pytest.raises(DataError, match=message):
        table(folder, "filepath,title\n" + rows)


def test_rows_count_as_a_spreadsheet_counts_them(folder: Path):
    with pytest.raises(DataError, match=r"t\.csv, row 5: the caption is empty"):
        table(folder, 'filepath,title\na.png,"one\n\ntwo"\n\nb.png,x\nb.png,""\n')


def test_text_in_another_encoding_is_told_by_its_byte(folder: Path):
    with pytest.raises(DataError, match="not UTF-8 at byte 24: save it as UTF-8"):
        table(folder, b"filepath,title\na.png,caf" + b"\xe9\n")
    with pytest.raises(DataError, match="not UTF-8 at byte 0:"):
        table(folder, "filepath,title\na.png,one\n".encode("utf-16"))


def test_rows_and_files_without_end_are_bounded(folder: Path, monkeypatch):
    before = csv.field_size_limit()
    start = time.process_time()
    with pytest.raises(DataError, match="longer than 131,072 bytes: is a quotation mark not"):
        table(folder, b'filepath,title\na.png,"' + b"x\n" * MAX_RECORD)
    with pytest.raises(DataError, match="the row that ends after byte 0 is longer"):
        table(folder, b"\0" * (1 << 24))
    assert time.process_time() - start < 5
    fits = MAX_RECORD - len("a.png,,\n")
    monkeypatch.setattr("sslpurify.data.captions.MAX_CAPTION", 10)
    with pytest.raises(DataError, match="longer than 10 characters"):
        table(folder, f"filepath,title\na.png,{'x' * fits}\n")
    assert csv.field_size_limit() == before
    monkeypatch.setattr("sslpurify.data.table.MAX_ROWS", 3)
    assert len(table(folder, "filepath,title\na.png,x\na.png,y\n")) == 2
    with pytest.raises(DataError, match="row 4: at most 3 rows are read"):
        table(folder, "filepath,title\na.png,x\na.png,y\na.png,z\n")


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "x/../../secret.png",
        "/etc/hostname",
        "link.png",
        "up/secret.png",
        "a\0.png",
    ],
)
def test_paths_that_leave_the_folder_are_unsafe_by_row(folder: Path, path: str):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to("..")
    found = table(folder, f"filepath,title\na.png,one\n{path},two\n")
    assert captions_of(found, [0]) == ["one"]
    with pytest.raises(UnsafeInputError, match=r"t\.csv, row 3: .* leaves the folder"):
        found.pick([0, 1])
    with pytest.raises(UnsafeInputError, match="row 3"):
        read_pairs(folder / "t.csv", 8)


def captions_of(found: Table, indices: list[int]) -> list[str]:
    return [pair.captions[0] for pair in found.pick(indices) if isinstance(pair, Pair)]


def test_a_folder_whose_name_starts_alike_is_not_the_folder(folder: Path):
    write_picture(folder.parent / "data2/a.png", 1)
    with pytest.raises(UnsafeInputError, match="row 2"):
        table(folder, "filepath,title\n../data2/a.png,one\n").pick([0])


def test_absolute_paths_and_links_inside_the_folder_are_fine(folder: Path):
    (folder / "link.png").symlink_to("a.png")
    (folder.parent / "alias").symlink_to(folder)
    rows = f"filepath,title\n{folder}/a.png,one\nlink.png,two\n{folder.parent}/alias/b.png,three\n"
    table(folder, rows)
    for path in (folder / "t.csv", folder.parent / "alias/t.csv"):
        pairs = read_pairs(path, 8)
        assert pairs.captions == (("one",), ("two",), ("three",))
        assert [Path(str(source)).name for source in pairs.images.sources] == [
            "a.png",
            "a.png",
            "b.png",
        ]


def test_paths_are_not_relative_to_the_working_directory(folder: Path, monkeypatch):
    table(folder, "filepath,title\ndata/a.png,one\n")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError, match=r"data/data/a\.png: does not exist"):
        read_pairs(Path("data/t.csv"), 8)
    table(folder, "filepath,title\na.png,one\n")
    assert len(read_pairs(Path("data/t.csv"), 8)) == 1


def test_images_that_are_none_are_counted(folder: Path):
    os.mkfifo(folder / "pipe.png")
    rows = "a.png,1\nnope.png,2\npipe.png,3\n.,4\nt.csv,5\nhttp://example.com/a.png,6\n"
    table(folder, f"filepath,title\n{rows}{'n' * 5000},7\n")
    pairs = read_pairs(folder / "t.csv", 8, max_bad_fraction=0.9)
    assert pairs.captions == (("1",),)
    assert [item.reason.split(" (")[0] for item in pairs.images.unreadable] == [
        "does not exist",
        "not a regular file",
        "not a regular file",
        "not an image of a known format",
        "does not exist",
        "File name too long",
    ]


def test_a_table_that_is_no_file_or_changes_is_an_error(folder: Path):
    for name, message in (("nope.csv", "does not exist"), ("pipe.csv", "not a regular file")):
        if name == "pipe.csv":
            os.mkfifo(folder / name)
        with pytest.raises(DataError, match=message):
            Table(folder / name, "filepath", "title")
    found = table(folder, "filepath,title\na.png,one\nb.png,two\n")
    table(folder, "filepath,title\na.png,one\n")
    with pytest.raises(DataError, match="changed while it was read"):
        found.pick([0, 1])


VALID = '\ufefffilepath,title,"n"\r\na.png,"one, ""two""\r\nthree",1\r\nb.png,vier é,\r\n'.encode()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(VALID)),
            st.sampled_from(
                [
                    b'"',
                    b",",
                    b"\n",
                    b"\r",
                    b"\0",
                    b"\xff",
                    b"../",
                    b"/",
                    b"\t",
                    b"\xef\xbb\xbf",
                    b"",
                ]
            ),
            st.integers(0, 3),
        ),
        max_size=6,
    )
)
def test_mutated_tables_raise_nothing_but_our_errors(tmp_path_factory, changes):
    data = VALID
    for position, inserted, removed in changes:
        data = data[:position] + inserted + data[position + removed :]
    folder = tmp_path_factory.getbasetemp()
    with contextlib.suppress(SslPurifyError):
        found = table(folder, data)
        for pair in found.pick(range(len(found))):
            assert isinstance(pair, Pair)
            assert Path(str(pair.source)).is_relative_to(os.path.realpath(folder))
            assert pair.captions[0].strip()
