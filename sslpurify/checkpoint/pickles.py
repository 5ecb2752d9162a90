"""What a pickle would do, read without doing it: a list of the names it refers to.

This is the first of two gates. The second, ``torch.load(..., weights_only=True)``, calls nothing
outside torch's own list either; but it names only the first offender, in a text that advises to
switch it off, and its list holds calls that a few bytes can drive out of memory
(``bytearray(10**12)``). Here only what plain weights need is let through.
"""

import pickletools
import warnings
from collections.abc import Iterator
from io import BufferedReader, BytesIO

from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing

_MAX_OPCODES = 2_000_000

_STORAGES = (
    "Double Float Half BFloat16 Long Int Short Char Byte Bool ComplexDouble ComplexFloat "
    "QInt32 QInt8 QUInt8"
)
_DTYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz "
    "float8_e8m0fnu int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex128 complex64 "
    "complex32 qint32 qint8 quint8 per_tensor_affine per_channel_affine"
)
_ALLOWED = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "builtins.set",
        "builtins.complex",
        "__builtin__.set",
        "__builtin__.complex",
        "torch.Size",
        "torch.device",
        "torch.serialization._get_layout",
        "torch.storage.UntypedStorage",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_sparse_tensor",
        "torch._utils._rebuild_qtensor",
        "torch._utils._rebuild_meta_tensor_no_storage",
        *(f"torch.{name}Storage" for name in _STORAGES.split()),
        *(f"torch.{name}" for name in _DTYPES.split()),
    }
)
_OPCODES = (
    "PROTO STOP MARK GLOBAL REDUCE BUILD NEWOBJ BINPERSID APPEND APPENDS SETITEM SETITEMS "
    "TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT "
    "EMPTY_SET BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING LONG1 BINGET "
    "LONG_BINGET BINPUT LONG_BINPUT"
)
_KNOWN = frozenset(_OPCODES.split())
_UNKNOWN = ("?", "?")


def require_plain(file: BufferedReader | BytesIO, pickles: int = 1) -> None:
    """Reads ``pickles`` pickles from ``file`` and makes sure that they only rebuild plain data.

    Raises:
        UnsafeInputError: They name something else; the message lists all of it.
        CheckpointError: They are damaged, or use opcodes that torch's safe reader does not know.
    """
    names: dict[str, None] = {}
    unknown: dict[str, None] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in the texts of a hostile file
        for opcode, name in _operations(file, pickles):
            if name and name not in _ALLOWED:
                names[name] = None
            if opcode not in _KNOWN:
                unknown[opcode] = None
    if names:
        raise UnsafeInputError(
            f"loading it would use {listing(names)}, which is code and not weights; nothing was "
            "run. Ask its publisher for a safetensors file, or for a checkpoint that holds "
            "nothing but the state dict"
        )
    if unknown:
        raise CheckpointError(
            f"it was pickled with opcodes that the safe reader does not know ({listing(unknown)}):"
            " it has to be saved again with torch.save's own pickle protocol, or as safetensors"
        )


def _operations(file: BufferedReader | BytesIO, pickles: int) -> Iterator[tuple[str, str]]:
    """Each opcode with the global that it names, or an empty text."""
    count = 0
    try:
        for _ in range(pickles):
            memo: dict[object, str] = {}
            texts = _UNKNOWN
            for opcode, argument, _ in pickletools.genops(file):
                count += 1
                if count > _MAX_OPCODES:
                    raise UnsafeInputError(
                        f"its pickle has more than {_MAX_OPCODES:,} operations: no checkpoint "
                        "of an encoder needs that many"
                    )
                yield opcode.name, _global(opcode.name, argument, texts)
                texts = _texts_after(opcode.name, argument, texts, memo)
    except (ValueError, OverflowError, MemoryError) as error:
        raise CheckpointError("its pickle is damaged or cut off: download it again") from error


def _global(opcode: str, argument: object, texts: tuple[str, str]) -> str:
    if opcode in ("GLOBAL", "INST"):
        return str(argument).replace(" ", ".", 1)
    if opcode == "STACK_GLOBAL":
        return ".".join(texts)
    return f"extension registry code {argument}" if opcode.startswith("EXT") else ""


def _texts_after(
    opcode: str, argument: object, texts: tuple[str, str], memo: dict[object, str]
) -> tuple[str, str]:
    """The two texts on top of the stack after an opcode, which STACK_GLOBAL would take."""
    if opcode in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = texts[1]
        return texts
    if opcode in ("GET", "BINGET", "LONG_BINGET"):
        return texts[1], memo.get(argument, "?")
    if isinstance(argument, str) and opcode not in ("GLOBAL", "INST"):
        return texts[1], argument
    return texts if opcode == "FRAME" else _UNKNOWN
