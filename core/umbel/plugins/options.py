"""Options of a transport: named, typed, and refused when unknown."""

from __future__ import annotations

from umbel.transport import Options


def take_options(options: Options, /, **known: type | tuple[type, ...]) -> Options:
    """Check the options that the user gave against those that a transport knows.

    Args:
        options: those of the context.
        known: the name of each option, and the type or types of its value.

    Returns:
        *options*.

    Raises:
        TypeError: an option is unknown, or its value of another type.
    """
    for name, value in options.items():
        if name not in known:
            import difflib  # slow to import, and for errors only

            near = difflib.get_close_matches(name, known, 1) or sorted(known)
            what = f"perhaps {', '.join(near)}" if near else "this takes none"
            message = f"unknown option {name!r}: {what}"
            raise TypeError(message)
        kind = known[name]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not _is_one_of(value, kinds):
            wanted = " or ".join(f"a value of {each.__name__}" for each in kinds)
            message = f"option {name}={value!r}: give {wanted}"
            raise TypeError(message)
    return options


def _is_one_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        kinds = tuple(kind for kind in kinds if kind is not int)  # though Python's is
    elif float in kinds:
        kinds = (*kinds, int)  # as for type checkers
    return isinstance(value, kinds)
