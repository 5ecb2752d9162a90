"""Pickles, read by a machine of our own that builds descriptions and calls nothing.

Python's unpickler imports what a file names and calls it. torch's, with ``weights_only=True``,
calls only what is on its list, but its list has holes (CVE-2025-32434, CVE-2026-24747), some of
its calls take any amount of memory (``bytearray(10**12)``), and it gives up at the first numpy
scalar. This one has no way to import, look up or call anything: a tensor becomes a `Stored`, which
says where its data lies, an object an `Inert`, which holds what it would be made of.
"""

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import Any

from sslpurify.checkpoint.names import DTYPES, MAPPINGS, STORAGES, may_be_called, may_be_named
from sslpurify.checkpoint.rebuild import BUILDERS
from sslpurify.checkpoint.stored import Inert, Key, Name, Storage, Stored
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing

_MAX_OPCODES = 600_000
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERAL_OPCODES = (
    "BININT BININT1 BININT2 LONG1 LONG4 INT LONG BINFLOAT FLOAT BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 UNICODE BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 STRING BINSTRING "
    "SHORT_BINSTRING"
)
_LITERALS = frozenset(_LITERAL_OPCODES.split())
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Program:
    """What a pickle holds.

    Args:
        value: Plain data, `Stored`, `Inert`, `Name`; dictionaries have texts and `Key` as keys.
        inert: What it names beyond the parts of tensors and containers.
        storages: Those that it refers to, by their keys.
    """

    value: Any
    inert: tuple[str, ...]
    storages: dict[str, Storage]


def interpret(file: BufferedReader | BytesIO) -> Program:
    """Reads one pickle, and leaves the file behind it.

    Raises:
        UnsafeInputError: It asks for code to run; the message lists all that it names. Or it is
            longer than any checkpoint's.
        CheckpointError: It is damaged.
    """
    machine = _Machine()
    damage: Exception | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in the texts of a hostile file
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count > _MAX_OPCODES:
                    raise UnsafeInputError(
                        f"its pickle has more than {_MAX_OPCODES:,} operations: no checkpoint "
                        "of an encoder needs that many"
                    )
                machine.step(opcode.name, argument)
    except _DAMAGE as error:
        damage = error
    if machine.refused:
        raise UnsafeInputError(
            f"loading it would use {listing(machine.refused)}, which is code and not weights; "
            "nothing was run. Ask its publisher for a safetensors file, or for a checkpoint that "
            "holds nothing but the state dict"
        )
    if damage or len(machine.stack) != 1 or machine.below:
        raise CheckpointError("its pickle is damaged or cut off: download it again") from damage
    return Program(machine.stack[0], tuple(machine.inert), machine.storages)


class _Machine:
    """The stack, the memo, and what was refused so far."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.inert: dict[str, None] = {}
        self.refused: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        else:
            _ACTIONS[opcode](self, argument)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def put(self, place: int | str | None) -> None:
        index = len(self.memo) if place is None else int(place)
        if not 0 <= index <= _MAX_OPCODES:
            raise ValueError("no pickler numbers its memo like that")
        self.memo[index] = self.stack[-1]

    def get(self, place: int | str) -> None:
        self.stack.append(self.memo[int(place)])

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def collect(self, kind: Callable[[list[Any]], Any]) -> None:
        items = self.marked()
        self.stack.append(kind(items))

    def dictionary(self, _: Any) -> None:
        items = self.marked()
        self.stack.append({})
        self.set_items(items)

    def append(self, items: list[Any]) -> None:
        top = self.stack[-1]
        (top.content if isinstance(top, Inert) else _only(list, top)).extend(items)

    def set_items(self, items: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, Inert):
            top.content.extend(items)
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            _only(dict, top)[key if isinstance(key, str) else Key(key)] = value

    def name(self, text: str) -> None:
        if not may_be_named(text):
            self.refuse(text)
        elif not any(text in known for known in (MAPPINGS, BUILDERS, STORAGES, DTYPES)):
            self.inert[text] = None
        self.stack.append(Name(text))

    def refuse(self, text: str) -> None:
        self.refused[text] = None

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(f"{_only(str, module)}.{_only(str, name)}")

    def reduce(self, _: Any) -> None:
        arguments, called = _only(tuple, self.stack.pop()), self.stack.pop()
        text = called.text if isinstance(called, Name) else f"the call of a {_kind(called)}"
        if text in MAPPINGS:
            self.stack.append(_mapping(arguments))
        elif text in BUILDERS:
            self.stack.append(BUILDERS[text](*arguments))
        else:
            if not may_be_called(text, arguments):
                self.refuse(text)
            self.stack.append(Inert(text, [*arguments]))

    def new(self, arguments: tuple[Any, ...]) -> None:
        text = _only(Name, self.stack.pop()).text
        made = Inert(text, [*_only(tuple, arguments)])
        self.stack.append({} if text in MAPPINGS else made)

    def new_with_keywords(self, _: Any) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.new((*arguments, keywords))

    def build(self, _: Any) -> None:
        """Attributes: those of an object become part of it, those of a container are not read."""
        state, top = self.stack.pop(), self.stack[-1]
        for part in state if isinstance(state, tuple) else (state,):
            keys = part if isinstance(part, dict) else ()
            for key in keys:
                if isinstance(key, str) and key.startswith("__"):
                    self.refuse(f"{_kind(top)}.{key}")
        if isinstance(top, Inert):
            top.content.append(state)
        elif not isinstance(top, (dict, Stored)):
            self.refuse(f"attributes of a {_kind(top)}")

    def call(self, text: str, arguments: list[Any]) -> None:
        """The two opcodes of protocol 0 that call, which no data needs."""
        self.refuse(text)
        self.stack.append(Inert(text, arguments))

    def obj(self, _: Any) -> None:
        called, *arguments = self.marked()
        self.call(called.text if isinstance(called, Name) else _kind(called), arguments)

    def extension(self, code: int) -> None:
        self.call(f"extension registry code {code}", [])

    def persistent(self, _: Any) -> None:
        kind, name, key, _location, elements, *view = self.stack.pop()
        if kind != "storage" or any(view) or not isinstance(elements, int) or elements < 0:
            raise ValueError("not a storage")
        storage = Storage(_only(str, key), STORAGES[_only(Name, name).text], elements)
        if self.storages.setdefault(key, storage).size != storage.size:
            raise ValueError("a storage of two sizes")
        self.stack.append(storage)


def _only(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Inert) else type(value).__name__


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """``OrderedDict()``, or of a list of pairs as Python 2 pickled it; a default is forgotten."""
    (pairs,) = arguments if arguments and isinstance(arguments[0], (list, dict)) else ([],)
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return {key if isinstance(key, (str, Key)) else Key(key): value for key, value in items}


def _joined(argument: str) -> str:
    """``module name`` of protocol 0 to 2, as one name."""
    return argument.replace(" ", ".", 1)


_Action = Callable[[_Machine, Any], object]
_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _, __: None),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.marked(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.stack.append([])),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "TUPLE": lambda machine, _: machine.collect(tuple),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda machine, _: machine.collect(list)),
    "DICT": _Machine.dictionary,
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.append(machine.marked())),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.marked()),
    "GLOBAL": lambda machine, argument: machine.name(_joined(argument)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": lambda machine, _: machine.new(machine.stack.pop()),
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "BUILD": _Machine.build,
    "INST": lambda machine, argument: machine.call(_joined(argument), machine.marked()),
    "OBJ": _Machine.obj,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    "BINPERSID": _Machine.persistent,
}
"""Of every opcode that a checkpoint may use; an unknown one is damage."""
