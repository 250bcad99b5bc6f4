"""Which transports may be used, and which of several, as we were told."""

from __future__ import annotations

import errno
import os
from typing import Final

from umbel.errors import system_error
from umbel.values.address import NO_SCHEME, is_scheme


def listed_in(variable: str) -> list[str]:
    """Read a list, of schemes or plugins, from the environment, in its order."""
    names = (name.strip() for name in os.environ.get(variable, "").split(","))
    return [name for name in dict.fromkeys(names) if name]


def _require_name(name: str, source: str = "") -> None:
    """EINVAL if no transport can have that name, so that to forbid it forbids none."""
    if not is_scheme(name):
        message = f"{source}{name!r} {NO_SCHEME}"
        raise system_error(errno.EINVAL, message)


def _schemes_in(variable: str) -> set[str]:
    names = set(listed_in(variable))
    for name in names - {"*"}:
        _require_name(name, f"{variable}: ")
    return names


def _preference(text: str) -> tuple[str, str]:
    scheme, _, distribution = text.partition("=")
    if not distribution:
        message = f"UMBEL_PREFER: {text!r} names no distribution: write mem=own-mem"
        raise system_error(errno.EINVAL, message)
    _require_name(scheme, "UMBEL_PREFER: ")
    return scheme, distribution


_blocked: Final = _schemes_in("UMBEL_DISABLE")
#: None: all. A variable without a name in it, such as ",", allows none.
_allowed = _schemes_in("UMBEL_ALLOW") if os.environ.get("UMBEL_ALLOW") else None
#: Of several for one scheme the last counts, as of several calls of `prefer`.
preferred: Final = dict(map(_preference, listed_in("UMBEL_PREFER")))


def is_blocked(scheme: str) -> bool:
    """Tell whether new use of *scheme* is forbidden."""
    if scheme in _blocked or "*" in _blocked:
        return True
    return _allowed is not None and scheme not in _allowed


def block(scheme: str) -> None:
    """Forbid new use of a scheme; open handles keep working.

    New use raises NotSupportedError (ENOTSUP); its plugin is never imported. The
    environment variable UMBEL_DISABLE=scheme,scheme does the same.

    Args:
        scheme: of the transport; "*": all of them.

    Raises:
        OSError: EINVAL, that can't be a scheme. What is wrong in the variable, or in
            UMBEL_ALLOW, is raised where umbel is imported.

    Source:
        libdill's configure option --disable-sockets.
    """
    if scheme != "*":
        _require_name(scheme)
    _blocked.add(scheme)


def allow_only(*schemes: str) -> None:
    """Forbid new use of all schemes but these, as `block` does.

    The environment variable UMBEL_ALLOW=scheme,scheme does the same.

    Args:
        *schemes: those that stay allowed, unless they are blocked. They replace the
            list of an earlier call, or of the variable.

    Raises:
        OSError: EINVAL, one can't be a scheme.

    Source:
        own.
    """
    for scheme in schemes:
        _require_name(scheme)
    global _allowed  # noqa: PLW0603 - process-wide by its nature
    _allowed = set(schemes)


def prefer(scheme: str, distribution: str) -> None:
    """Choose between distributions that bring the same scheme, before its first use.

    So a built-in transport can be replaced, too. The environment variable
    UMBEL_PREFER=scheme=distribution,scheme=distribution does the same.

    Args:
        scheme: of the transport.
        distribution: its name, as pip lists it. If it does not bring the scheme, that
            is an error (EPROTONOSUPPORT) when the scheme is first used.

    Raises:
        OSError: EINVAL, that can't be a scheme. What is wrong in the variable is raised
            where umbel is imported.

    Source:
        own.
    """
    _require_name(scheme)
    preferred[scheme] = distribution
