"""Multi-head attention and feed-forward layers as data, and the permutation groups in them.

Heads may change places; within a head, the dimensions along which queries meet keys (qk) and those
along which values go out (vo) may be reordered, each on their own. Groups come in this order:
heads, then what lies within the heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sslpurify.symmetry.spec import Group, Linear, Probe, Touch, View


@dataclass(frozen=True)
class Attention:
    """Multi-head attention, as names of tensors.

    Args:
        name: What its groups are called after.
        heads: Their number.
        reads: Shows the tokens that keys and values are made of, and the queries too unless
            ``latent``. The projections are applied to them again, as fused attention runs without
            calling them.
        q: Makes the queries; as many rows as keys and values have.
        k: Makes the keys.
        v: Makes the values.
        out: The projection behind: its columns read the values, head after head.
        along_values: Vectors that lie along all heads' values, of a norm before ``out``.
        shared: Vectors as long as a head that all heads use, of norms of queries and keys: then
            the dimensions of queries and keys must be reordered alike in all heads.
        per_head: Tensors with a number for every head on their first axis.
        latent: The queries come from a parameter and are the same for every image, so that there
            is nothing in them to watch.
    """

    name: str
    heads: int
    reads: Probe
    q: Linear
    k: Linear
    v: Linear
    out: Linear
    along_values: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    per_head: tuple[str, ...] = ()
    latent: bool = False

    @property
    def size(self) -> int:
        """Dimensions of a head."""
        return (self.v.stop - self.v.start) // self.heads


@dataclass(frozen=True)
class Feedforward:
    """A feed-forward layer, as names of tensors.

    Args:
        name: What its group is called.
        up: Make the hidden units: one projection, or a gate and what it gates.
        down: Reads them, as a module that is called.
        along_units: Vectors that lie along the hidden units, of a norm between.
    """

    name: str
    up: tuple[Linear, ...]
    down: Linear
    along_units: tuple[str, ...] = ()


def attention_groups(attention: Attention) -> Iterator[Group]:
    """Heads, then queries with keys and values with outputs, head by head.

    Where all heads share the norms of their queries and keys, one group moves those of all heads.
    """
    a, size = attention, attention.size
    q, k, v = (replace(a.reads, linear=part) for part in (a.q, a.k, a.v))
    compared = (k,) if a.latent else (q, k)
    moved = [touch for part in (a.q, a.k) for touch in _rows(part, 0, size)]
    moved += [*_values(a, 0, size), *(Touch(name, 0) for name in a.per_head)]
    views = tuple(View(probe, 0, size) for probe in (*compared, v))
    yield Group(f"{a.name}.heads", a.heads, tuple(moved), views, "heads")
    starts = [head * size for head in range(a.heads)]
    together = [starts] if a.shared else [[start] for start in starts]
    for number, places in enumerate(together):
        name = f"{a.name}.qk" if a.shared else f"{a.name}.qk{number}"
        touches = [t for at in places for part in (a.q, a.k) for t in _rows(part, at)]
        touches += (Touch(vector, 0) for vector in a.shared)
        views = tuple(View(probe, at) for at in places for probe in compared)
        yield Group(name, size, tuple(touches), views, "qk")
    for head, at in enumerate(starts):
        yield Group(f"{a.name}.vo{head}", size, tuple(_values(a, at)), (View(v, at),), "vo")


def feedforward_group(layer: Feedforward) -> Group:
    """The hidden units, watched where they are read."""
    touches = [touch for part in layer.up for touch in _rows(part, 0)]
    touches += (Touch(vector, 0) for vector in layer.along_units)
    touches.append(Touch(layer.down.weight, 1))
    reader = Probe(layer.down.weight.removesuffix(".weight"), layout="channels-last")
    size = layer.up[0].stop - layer.up[0].start
    return Group(layer.name, size, tuple(touches), (View(reader),), "inner")


def written(linear: Linear) -> Iterator[Touch]:
    """What a projection writes: all its rows and its bias."""
    yield from _rows(linear, 0)


def _rows(part: Linear, at: int, block: int = 1) -> Iterator[Touch]:
    yield Touch(part.weight, 0, part.start + at, block)
    if part.bias is not None:
        yield Touch(part.bias, 0, part.start + at, block)


def _values(a: Attention, at: int, block: int = 1) -> Iterator[Touch]:
    """Where values are made, normed and read."""
    yield from _rows(a.v, at, block)
    yield from (Touch(vector, 0, at, block) for vector in a.along_values)
    yield Touch(a.out.weight, 1, at, block)
