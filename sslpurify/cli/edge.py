"""Where the command line meets the world: answers, progress, errors, signals."""

import importlib
import json
import os
import shlex
import sys
import traceback
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from sslpurify.errors import InterruptionError, SslPurifyError

if TYPE_CHECKING:
    from sslpurify.run import Answer

_NOT_RECIPE = {"config", "settings", "resume", "per_class", "as_json", "debug", "verbose"}
_RESUMABLE = {"purify", "attack", "pretrain"}


def _follows() -> bool:
    """Whether torchrun started another process that does the telling."""
    return os.environ.get("RANK", "0") != "0"


def recipe_keys(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's parameters that are keys of its recipe."""
    return {key: value for key, value in parameters.items() if key not in _NOT_RECIPE}


def telling(verbose: bool | None) -> AbstractContextManager[Any]:
    """The context in which progress and the log go to standard error; gives the listener."""
    from sslpurify.report import progress

    importlib.import_module("sslpurify.run")  # must not count towards the first stage's time

    return progress(sys.stderr, quiet=verbose is False or _follows(), verbose=verbose is True)


def show(answer: "Answer", as_json: bool) -> None:
    """Print an answer for people or for programs."""
    if _follows():
        return
    typer.echo(json.dumps(answer.data, allow_nan=False) if as_json else _escaped(answer.text))


@contextmanager
def edge(as_json: bool, debug: bool) -> Generator[None]:
    """Turn every error of a command into one message and the documented exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except InterruptionError as error:
        _fail(error, f"{error}{_how_to_go_on()}", error.exit_code, as_json, debug)
    except SslPurifyError as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", [])])
        _fail(error, text, error.exit_code, as_json, debug)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted", 130, as_json, debug)
    except Exception as error:  # noqa: BLE001 - the one place that no error passes
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        hint = "a bug in sslpurify, or a broken machine; --debug shows where"
        _fail(error, f"internal error ({hint}): {reason}", 1, as_json, debug)


def _how_to_go_on() -> str:
    """The command that resumes, where there is one."""
    words = sys.argv[1:]
    if not words or words[0] not in _RESUMABLE:
        return ""
    again = words if "--resume" in words else [*words, "--resume"]
    return f"; go on with: {shlex.join(['sslpurify', *again])}"


def _fail(error: BaseException, message: str, code: int, as_json: bool, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    typer.echo(f"sslpurify: {_escaped(message)}", err=True)
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
    raise typer.Exit(code)


def _escaped(text: str) -> str:
    """Names from files must not move the cursor, nor end the program as half a character would."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
