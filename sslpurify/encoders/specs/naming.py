"""Names in a specification: what a module is, and where it lies within a network."""

from dataclasses import replace

from torch import nn

from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import Fixed, Group, Linear, PermutationSpec, Probe, View


def under(prefix: str, spec: PermutationSpec) -> PermutationSpec:
    """A specification of a module as one of the network that holds it: names with a prefix.

    Groups keep their names.
    """
    groups = (_group_under(prefix, group) for group in spec.groups)
    fixed = (Fixed(prefix + axis.name, axis.dim) for axis in spec.fixed)
    return PermutationSpec(tuple(groups), tuple(fixed))


def described(module: nn.Module, spec: PermutationSpec) -> PermutationSpec:
    """The specification, if it accounts for every axis of every tensor of the module.

    Raises:
        ConfigError: If the module has a tensor that the specification does not know, or a shape it
            does not expect: then it is built in a way that is not described.
    """
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }
    for problem in spec.problems(shapes):
        raise ConfigError(f"this {type(module).__name__} is built in an unknown way: {problem}")
    return spec


def is_a(module: nn.Module, *kinds: str) -> bool:
    """Whether a module is of one of these classes or of a subclass.

    Classes are compared by name (``library.Class``, whatever the file within the library), so that
    nobody imports a library only to learn that a module does not come from it.
    """
    return any(_kind(ancestor) in kinds for ancestor in type(module).__mro__)


def require_kind(module: nn.Module, name: str, *kinds: str) -> None:
    """Refuse a module of any other class than these: a subclass may compute something else.

    Raises:
        ConfigError: Naming the module and its class.
    """
    if _kind(type(module)) not in kinds:
        raise ConfigError(f"{name} is {_kind(type(module))}, which is not described here")


def has(module: nn.Module, name: str) -> bool:
    """Whether a module has this tensor or sub-module, other than None."""
    parent, _, last = name.rpartition(".")
    holder = module.get_submodule(parent)
    return any(
        last in dict(found)
        for found in (holder.named_parameters(recurse=False), holder.named_children())
    )


def count(built: object, attribute: str) -> int:
    """A number that a module or its configuration was built with, as of its heads.

    Raises:
        ConfigError: If it has no such whole positive number.
    """
    number = getattr(built, attribute, None)
    if not isinstance(number, int) or number < 1:
        raise ConfigError(f"{type(built).__name__} does not say its {attribute}")
    return number


def _kind(cls: type) -> str:
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def _group_under(prefix: str, group: Group) -> Group:
    touches = tuple(replace(touch, name=prefix + touch.name) for touch in group.touches)
    views = tuple(_view_under(prefix, view) for view in group.probes)
    return replace(group, touches=touches, probes=views)


def _view_under(prefix: str, view: View) -> View:
    probe, linear = view.probe, view.probe.linear
    if linear is not None:
        bias = None if linear.bias is None else prefix + linear.bias
        linear = Linear(prefix + linear.weight, bias, linear.start, linear.stop)
    moved = Probe(prefix + probe.module, probe.side, probe.layout, linear)
    return replace(view, probe=moved)
