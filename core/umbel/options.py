"""Options of a transport: named, typed, and refused when unknown."""

from __future__ import annotations

from umbel.transport import Options


def take_options(options: Options, **known: type | tuple[type, ...]) -> Options:
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
            message = f"unknown option {name!r}: perhaps {', '.join(near) or 'none'}"
            raise TypeError(message)
        if not isinstance(value, known[name]):
            message = f"option {name}={value!r} has the wrong type: {known[name]!r}"
            raise TypeError(message)
    return options
