"""For the reference: settings show their defaults, which no docstring repeats."""

from griffe import (
    Attribute,
    Class,
    DocstringSectionAttributes,
    Expr,
    ExprCall,
    ExprKeyword,
    Extension,
)


class Defaults(Extension):
    """Adds the default of every documented field of a pydantic model to its description."""

    def on_class_members(self, *, cls: Class, **_: object) -> None:
        """Called once a class is read in full."""
        if cls.docstring is None or "Attributes:" not in cls.docstring.value:
            return
        for section in cls.docstring.parsed:
            if isinstance(section, DocstringSectionAttributes):
                for item in section.value:
                    field = cls.members.get(item.name)
                    if isinstance(field, Attribute) and (default := _default(field.value)):
                        item.description += f" Default: `{default}`."


def _default(value: str | Expr | None) -> str | None:
    """What a field is where nobody sets it, as source code; None where it must be set."""
    if not isinstance(value, ExprCall) or str(value.function) != "Field":
        return None if value is None else str(value)
    named = (x for x in value.arguments if isinstance(x, ExprKeyword) and x.name == "default")
    return next((str(argument.value) for argument in named), None)
