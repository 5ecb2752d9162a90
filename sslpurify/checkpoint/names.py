"""What the names in a pickle stand for: a fixed list, everything else is data or refused.

Three kinds of names, none of which is ever imported:

- those that tensors and plain containers are made of, which the machine of `pickles` builds;
- those of harmless data (a numpy scalar, a path, a namespace, any class of the user's own): they
  stay inert, as a record of what the file says;
- all of Python's standard library beyond that list, and every call of something not on it: with
  these a file asks for code to run, and it is refused.
"""

import sys

import torch

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt32": torch.qint32,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
}
STORAGES = {
    "torch.storage.UntypedStorage": torch.uint8,
    **{f"torch.{name}Storage": dtype for name, dtype in _STORAGES.items()},
    **{f"torch.cuda.{name}Storage": dtype for name, dtype in _STORAGES.items()},
}
"""Types of storages to the type of their elements."""

_DTYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz "
    "float8_e8m0fnu int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex128 complex64 "
    "complex32 qint32 qint8 quint8"
)
DTYPES: dict[str, torch.dtype] = {f"torch.{name}": getattr(torch, name) for name in _DTYPES.split()}

MAPPINGS = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "collections.defaultdict",
        "builtins.dict",
        "__builtin__.dict",
    }
)

_BUILTINS = (
    "set frozenset list dict tuple int long float complex str unicode bool bytes bytearray object "
    "slice range xrange"
)
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_CALLABLE = frozenset(
    {
        *(f"builtins.{name}" for name in _BUILTINS.split()),
        *(f"__builtin__.{name}" for name in _BUILTINS.split()),
        "_codecs.encode",
        "argparse.Namespace",
        "collections.deque",
        "copy_reg._reconstructor",
        "copyreg._reconstructor",
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        "decimal.Decimal",
        "fractions.Fraction",
        "functools.partial",
        *(f"pathlib.{name}" for name in _PATHS.split()),
        *(f"pathlib._local.{name}" for name in _PATHS.split()),
        "types.SimpleNamespace",
        "uuid.UUID",
        *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random._pickle.__generator_ctor",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
        "torchvision.transforms.functional.InterpolationMode",
        *("torch.device", "torch.Generator", "torch.serialization._get_layout"),
        "torch.Tensor",
        *(f"torch.jit._pickle.build_{name}list" for name in ("int", "double", "bool", "tensor")),
        "torch.jit._pickle.restore_type_tag",
    }
)
"""Data whose pickle takes a call; the call is not made."""
_PLAIN = {"torch.per_tensor_affine", "torch.per_channel_affine", "typing.Any"}

_STANDARD_LIBRARY = sys.stdlib_module_names | {
    *("__builtin__", "commands", "copy_reg", "cPickle", "UserDict"),
    *("cStringIO", "StringIO", "Queue", "SocketServer", "urllib2", "popen2", "nt", "posix"),
}


def may_be_named(name: str) -> bool:
    """Whether a file may name this without asking for code to run: data outside Python itself."""
    return (
        name in _CALLABLE
        or name in MAPPINGS
        or name in _PLAIN
        or name.partition(".")[0] not in _STANDARD_LIBRARY
    )


def may_be_called(name: str, arguments: tuple[object, ...]) -> bool:
    """Whether a pickle calls this to make harmless data of these arguments.

    A ``bytearray`` of 10**12 is a call that torch's own reader makes.
    """
    if name.partition(".")[2] in ("bytes", "bytearray"):
        return not arguments or not isinstance(arguments[0], int)
    if name == "_codecs.encode":
        return len(arguments) == 2 and arguments[1] in ("latin1", "latin-1")
    return name in _CALLABLE
