"""Nothing in a checkpoint is ever run: every payload here would leave a canary file."""

import copyreg
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslpurify.checkpoint import read
from sslpurify.errors import CheckpointError, UnsafeInputError
from tests.checkpoint.files import SAVERS, legacy_around, programs, weights, zip_around

CONTAINERS = {"raw": bytes, "zip": zip_around, "legacy": legacy_around}


@pytest.mark.parametrize("name", programs(""))
def test_the_payloads_are_live(name, tmp_path):
    canary = tmp_path / "canary"
    try:
        pickle.loads(programs(f"touch {canary}")[name])  # noqa: S301
    except TypeError:
        assert name == "build"
    assert canary.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".txt"])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", programs(""))
def test_payloads_are_named_and_never_run(name, container, suffix, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / f"model{suffix}"
    path.write_bytes(CONTAINERS[container](programs(f"touch {canary}")[name]))
    with pytest.raises(UnsafeInputError) as caught:
        read(path)
    assert not canary.exists()
    assert str(caught.value).startswith(f"{path}: ")
    assert "'posix.system'" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_name_hidden_under_a_harmless_one_is_not_taken_for_it(container, tmp_path):
    hidden = b"\x80\x04\x8c\x05posix\x8c\x06system\x8c\x0bcollections\x8c\x0bOrderedDict00\x93"
    path = tmp_path / "model.pt"
    path.write_bytes(CONTAINERS[container](hidden + b"X\x04\x00\x00\x00true\x85R."))
    with pytest.raises(UnsafeInputError, match=r"use 'posix\.system'"):
        read(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_extension_registry_is_refused(container, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(CONTAINERS[container](b"\x80\x02\x82\x7fX\x04\x00\x00\x00true\x85R."))
    copyreg.add_extension("os", "system", 0x7F)
    try:
        with pytest.raises(UnsafeInputError, match="extension registry code 127"):
            read(path)
    finally:
        copyreg.remove_extension("os", "system", 0x7F)


@pytest.mark.parametrize("name", ["builtins.bytearray", "_codecs.encode", "torch.FloatTensor"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_calls_that_torch_allows_but_that_exhaust_memory_are_refused(name, container, tmp_path):
    path = tmp_path / "model.pt"
    program = b"\x80\x02c%s\n%s\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."
    path.write_bytes(CONTAINERS[container](program % tuple(name.encode().split(b"."))))
    with pytest.raises(UnsafeInputError, match=name):
        read(path)


@pytest.mark.parametrize("container", SAVERS)
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_a_damaged_file_is_one_of_our_errors_or_harmless(container, data, tmp_path):
    path = tmp_path / "model.pt"
    SAVERS[container](weights(), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    said = ""
    try:
        read(path)
    except (CheckpointError, UnsafeInputError) as error:
        said = str(error)
    assert "weights_only" not in said
    assert "\n" not in said
