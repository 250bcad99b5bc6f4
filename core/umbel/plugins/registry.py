"""The transports of this process: loaded when their scheme is first used."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from umbel.errors import (
    NotSupportedError,
    PluginError,
    UnknownTransportError,
    system_error,
)
from umbel.plugins.discovery import (
    TRANSPORTS,
    choose_entry,
    find_entry,
    import_entry,
    installed_entries,
    require_scheme,
    source_of,
)
from umbel.plugins.loaded import Transport
from umbel.plugins.policy import is_blocked
from umbel.plugins.validation import functions_of, lock, plugin_manager, register
from umbel.values.record import Record

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: What opens something: a plugin without one of these is no transport.
OPENING: Final = {"umbel_listen", "umbel_connect", "umbel_pair"}
#: All that a transport may implement.
OWNED: Final = OPENING | {"umbel_adopt", "umbel_close", "umbel_traits"}

_transports: Final[dict[str, Transport]] = {}
#: Why those that are installed could not be loaded. Not the errors: their tracebacks
#: would keep what their callers have open.
_failures: Final[dict[str, str]] = {}


def find_transport(scheme: str) -> Transport:
    """Give the transport of *scheme*, imported now if it was not before.

    Raises:
        NotSupportedError: ENOTSUP, it is blocked.
        UnknownTransportError: EPROTONOSUPPORT, none is installed.
        PluginError: ELIBACC, it failed to load, or speaks another API version.
        OSError: EEXIST, two distributions bring it.
    """
    if is_blocked(scheme):
        message = (
            f"the transport {scheme!r} is blocked here (umbel.block, allow_only, "
            "UMBEL_DISABLE or UMBEL_ALLOW)"
        )
        raise NotSupportedError(message)
    found = _transports.get(scheme)
    if found is not None:
        return found
    with lock:
        if scheme not in _transports:
            try:
                entry = find_entry(scheme)
                plugin = import_entry(entry)
                _transports[scheme] = _make(plugin, scheme, source_of(entry))
            except OSError as error:
                if scheme in installed_entries():
                    _failures[scheme] = error.strerror or str(error)
                raise
            _failures.pop(scheme, None)
        return _transports[scheme]


def _make(plugin: object, scheme: str, source: str) -> Transport:
    # One plugin may serve several schemes: pluggy knows it once.
    known = plugin_manager().list_name_plugin()
    is_new = all(other is not plugin for _, other in known)
    if is_new:
        register(plugin, f"{TRANSPORTS}:{scheme}", source)
    functions, wrappers = functions_of(plugin)
    problem = ""
    if wrappers:
        problem = f"wraps {', '.join(sorted(wrappers))}: that is for observers"
    elif not OPENING & functions.keys():
        names = ", ".join(sorted(hook.removeprefix("umbel_") for hook in OPENING))
        problem = f"has none of the hooks {names}"
    elif strange := sorted(functions.keys() - OWNED):
        problem = f"implements {', '.join(strange)}, which no transport has"
    if problem:
        if is_new:  # else it goes on as what it is, such as an observer
            plugin_manager().unregister(plugin)
        message = f"{scheme!r} of {source} is no transport: it {problem}"
        raise PluginError(message)
    return Transport(scheme, plugin, source, functions)


def add_transport(plugin: object, scheme: str, source: str = "this program") -> None:
    """Register a transport without a distribution.

    Args:
        plugin: a module or object with hooks (`hookimpl.connect` and others).
        scheme: not loaded yet in this process, though it may be installed.
        source: what it is called in messages.

    Raises:
        PluginError: ELIBACC, it breaks the contract.
        OSError: EEXIST, a transport for the scheme is loaded.
    """
    require_scheme(scheme, source)
    with lock:
        if scheme in _transports:
            message = f"{_transports[scheme].source} serves {scheme!r} already"
            raise system_error(errno.EEXIST, message)
        _transports[scheme] = _make(plugin, scheme, source)


def remove_transport(scheme: str) -> None:
    """Remove a transport again; its open streams and listeners go on.

    Args:
        scheme: of a transport that is loaded.

    Raises:
        UnknownTransportError: EPROTONOSUPPORT, it is not loaded.
    """
    with lock:
        if scheme not in _transports:
            message = f"no transport for {scheme!r} is loaded"
            raise UnknownTransportError(message)
        plugin = _transports.pop(scheme).plugin
        plugin_manager().unregister(plugin)
        for other, transport in _transports.items():
            if transport.plugin is plugin:  # by that name: *scheme* may come again
                plugin_manager().register(plugin, f"{TRANSPORTS}:{other}")
                break


class Installed(Record):
    """One line of `umbel transports`."""

    scheme: str
    source: str
    state: str


def installed_transports() -> list[Installed]:
    """List the transports that are installed, and the state of each."""
    return [
        Installed(scheme, source_of(entry), _state_of(scheme, entry, entries))
        for scheme, entries in sorted(installed_entries(True).items())
        for entry in entries
    ]


def _state_of(scheme: str, entry: EntryPoint, entries: Sequence[EntryPoint]) -> str:
    if is_blocked(scheme):
        return "blocked"
    loaded = _transports.get(scheme)
    chosen = choose_entry(scheme, entries)
    used = source_of(chosen or entry) if loaded is None else loaded.source
    if source_of(entry) != used:
        return f"not used: {used} is"
    failure = _failures.get(scheme)
    if failure is not None:
        return f"failed: {failure}"
    return "not loaded yet" if loaded is None else "loaded"
