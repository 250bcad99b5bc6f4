"""Immutable records by annotation.

They work like a NamedTuple or a dataclass; but a dozen of those would be a tenth of the
cost of importing umbel, since each compiles code of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Self, dataclass_transform

if TYPE_CHECKING:
    from inspect import Signature


class _Signature:
    """The signature of a record, made when somebody asks, such as `help`."""

    def __get__(self, _: Record | None, kind: type[Record]) -> Signature | None:
        if kind.__init__ is not Record.__init__:
            return None  # that of its own
        from inspect import Parameter, Signature

        hints: dict[str, object] = {}
        for base in reversed(kind.__mro__):
            hints.update(getattr(base, "__annotations__", {}))
        parameters = [
            Parameter(
                name,
                Parameter.POSITIONAL_OR_KEYWORD,
                default=getattr(kind, name, Parameter.empty),
                annotation=hints[name],
            )
            for name in kind._names
        ]
        try:
            return Signature(parameters)
        except ValueError:  # a subclass has put one without a default behind others
            return None


@dataclass_transform(frozen_default=True, eq_default=False)
class Record:
    """A record whose fields are the annotations of its class, its base's first."""

    _names: ClassVar[tuple[str, ...]] = ()
    __signature__: Final = _Signature()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._names = tuple(dict.fromkeys((*cls._names, *cls.__annotations__)))
        if "__match_args__" not in cls.__dict__:
            # As type checkers know it, to whom this is a dataclass.
            type.__setattr__(cls, "__match_args__", cls._names)

    def __init__(self, *values: object, **named: object) -> None:
        names = self._names
        fields = self.__dict__
        fields.update(zip(names, values, strict=False))
        if not named and len(values) == len(names):
            return  # all of them in order: a third of what the looks below take
        fields.update(named)
        for name in names:
            if name not in fields and not hasattr(self, name):
                message = f"{type(self).__name__}() lacks {name!r}"
                raise TypeError(message)
        if len(fields) != len(values) + len(named) or not fields.keys() <= {*names}:
            message = f"{type(self).__name__}() takes {', '.join(names)}"
            raise TypeError(message)

    def __setattr__(self, name: str, value: object) -> None:
        message = f"{type(self).__name__}.{name} can't be changed: make a new one"
        raise AttributeError(message)

    def __replace__(self, **changes: object) -> Self:
        """Give a copy with other values for some fields, as `copy.replace` does."""
        kept = {name: getattr(self, name) for name in self._names}
        return type(self)(**{**kept, **changes})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"{type(self).__name__}({shown})"
