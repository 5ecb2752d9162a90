"""Nothing in a file is ever run: each of these would leave a canary, none does, each is named."""

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from tests import pico
from tests.hostile.corpus import FILES, Call, beside_weights, built, calling, dotted

Cli = Callable[..., Result]
PACKAGE = Path(__file__).parents[2] / "sslpurify"


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "very many keys" else n for n in FILES],
)
def test_each_is_refused_by_name_and_never_run(name: str, cli: Cli, tmp_path: Path) -> None:
    make, named = FILES[name]
    canary = tmp_path / "canary"
    path = make(tmp_path, f"touch {canary}")
    done = cli("inspect", path)
    assert done.exit_code == 3, done.stderr
    assert named in done.stderr
    assert done.stderr.startswith(f"sslpurify: {path}")
    assert "weights_only" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not canary.exists()


@pytest.mark.parametrize("make", [lambda c: calling("posix.system", c), dotted])
def test_the_payloads_are_live(make: Callable[[str], bytes], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(make(f"touch {canary}"))  # noqa: S301
    assert canary.exists()


def test_an_object_takes_any_function_for_its_method(tmp_path: Path) -> None:
    """What a state with the name of a method would do in Python's unpickler."""
    canary = tmp_path / "canary"
    module = "import os; run = os.system; Settings = type('Settings', (), {})"
    (tmp_path / "mymodel.py").write_text(module)
    program = f"import pickle; pickle.loads({built(f'touch {canary}')!r})"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert canary.exists()


def test_the_environment_opens_no_door(tmp_path: Path) -> None:
    canaries = [tmp_path / "canary", tmp_path / "canary of legacy"]
    paths = [
        beside_weights(Call(f"touch '{canary}'"), tmp_path / f"{legacy}.pt", legacy=bool(legacy))
        for legacy, canary in enumerate(canaries)
    ]
    program = """
import sys, torch
from pathlib import Path
from sslpurify.checkpoint import read
from sslpurify.errors import UnsafeInputError
for path in sys.argv[1:]:
    try:
        read(Path(path))
    except UnsafeInputError as error:
        assert "posix.system" in str(error)
        print("refused", len(list(Path(path).parent.glob("canary*"))))
for path in sys.argv[1:]:
    torch.load(path)
"""
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *paths],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["refused 0", "refused 0"], done.stderr
    assert all(canary.exists() for canary in canaries)  # torch itself ran it: the door was open


@pytest.mark.parametrize("verb", ["purify", "evaluate", "attack", "recipe check"])
def test_recipes_run_nothing(verb: str, cli: Cli, tmp_path: Path) -> None:
    recipe, canary = tmp_path / "recipe.yaml", tmp_path / "canary"
    recipe.write_text(f"verb: purify\nseed: !!python/object/apply:os.system ['touch {canary}']\n")
    flag = ["--config", recipe] if verb in ("purify", "evaluate") else [recipe]
    done = cli(*verb.split(), *flag)
    assert done.exit_code in (3, 2 if verb == "recipe check" else 3)
    assert "python/object/apply:os.system" in done.stderr + done.stdout
    assert not canary.exists()


def test_every_verb_that_reads_a_checkpoint_refuses(cli: Cli, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = beside_weights(Call(f"touch {canary}"), tmp_path / "evil.pt")
    encoder = pico.write_checkpoint(tmp_path / "encoder.safetensors")
    images = pico.write_images(tmp_path / "images", 4)
    classes = pico.write_classes(tmp_path / "classes", 2)
    shape = ("--arch", pico.ARCH, "--force-image-size", pico.SIZE)
    probing = (*shape, "--train", classes, "--test", classes)
    for arguments in (
        ("inspect", evil),
        ("inspect", evil, "--arch", pico.ARCH),
        ("purify", evil, *shape, "--data", images, "--out", "out"),
        ("evaluate", evil, *probing),
        ("evaluate", encoder, *probing, "--before", evil),
        ("evaluate", encoder, *probing, "--reference", evil),
    ):
        done = cli(*arguments)
        assert done.exit_code == 3, done.stderr
        assert "'posix.system'" in done.stderr
        assert not (tmp_path / "out").exists()
        assert not canary.exists()


def test_the_refusal_is_one_json_object_too(cli: Cli, tmp_path: Path) -> None:
    evil = beside_weights(Call("true"), tmp_path / "evil.pt")
    answer = json.loads(cli("inspect", evil, "--json").stdout)
    assert answer["exit_code"] == 3
    assert "posix.system" in answer["error"]


def _unsafe(call: ast.Call) -> bool:
    """Whether a call would run what a file holds."""
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return (
        name in _LOADERS
        or name.rpartition(".")[2] in ("Unpickler", "load_module", "exec_module")
        or given.get("weights_only") == "False"
        or (name.endswith("torch.load") and given.get("weights_only") != "True")
        or given.get("trust_remote_code", "False") != "False"
        or given.get("allow_pickle", "False") != "False"
        or (name.endswith(("np.load", "numpy.load")) and given.get("allow_pickle") != "False")
    )


_LOADERS = {
    *("pickle.load", "pickle.loads", "dill.load", "joblib.load", "marshal.loads", "eval", "exec"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "torch.hub.load"),
    *("torch.export.load", "torch.package.PackageImporter", "shelve.open", "compile"),
}


def _calls(text: str) -> list[str]:
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return [ast.unparse(call) for call in found if _unsafe(call)]


def test_the_sources_hold_no_unsafe_way_to_load() -> None:
    sources = {path: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    assert len(sources) > 80
    assert not {path: found for path, text in sources.items() if (found := _calls(text))}


@pytest.mark.parametrize(
    "text",
    [
        *("torch.load(f)", "torch.load(f, weights_only=False)", "torch.jit.load(f)"),
        *("pickle.load(f)", "pickle.Unpickler(f)", "yaml.load(f, yaml.SafeLoader)"),
        *("np.load(f)", "np.load(f, allow_pickle=True)", "eval(x)"),
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
    ],
)
def test_the_static_test_finds_them(text: str) -> None:
    assert _calls(text)


def test_pickles_are_imported_to_write_bytes_only() -> None:
    """No module of the checkpoint room can unpickle, whatever it is handed."""
    for path in (PACKAGE / "checkpoint").glob("*.py"):
        imported = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        } - {"pickletools"}
        allowed = {"pickle"} if path.name == "sniff.py" else set[str]()
        assert imported & {"pickle", "_pickle", "importlib", "dill", "safetensors"} <= allowed


def test_torch_reads_what_is_refused_here_only_without_its_safety(tmp_path: Path) -> None:
    path = beside_weights(Call("true"), tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
