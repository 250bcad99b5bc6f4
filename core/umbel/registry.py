"""The transports of this process: loaded when their scheme is first used.

Hooks are run here, not by pluggy: only the owner's function, inside the wrappers of
observers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final, TypeVar, cast

from umbel.discovery import (
    TRANSPORTS,
    find_entry,
    import_entry,
    installed_entries,
    is_blocked,
    source_of,
)
from umbel.errors import (
    NotSupportedError,
    PluginError,
    UnknownTransportError,
    system_error,
)
from umbel.plugins import (
    functions_of,
    is_wrapped,
    lock,
    plugin_manager,
    register,
    run_hook,
)
from umbel.record import Record
from umbel.report import CloseReport
from umbel.shutdown import shut_down
from umbel.transport import (
    AdoptContext,
    CloseContext,
    ConnectContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    Traits,
)

T = TypeVar("T")
C = TypeVar("C")

#: What opens something: a plugin without one of these is no transport.
OPENING: Final = {"umbel_listen", "umbel_connect", "umbel_pair"}


class Transport:
    """A loaded transport: a scheme, and its plugin's hook functions."""

    __slots__ = ("_close", "functions", "plugin", "scheme", "source")

    def __init__(
        self, scheme: str, plugin: object, source: str, functions: dict[str, object]
    ) -> None:
        self.scheme = scheme
        self.plugin = plugin
        self.source = source
        self.functions = functions
        self._close = cast(
            "Callable[[CloseContext], CloseReport]",
            functions.get("umbel_close", shut_down),
        )

    def listen(self, context: ListenContext) -> Listener:
        """Run `umbel_listen`."""
        return cast("Listener", self._call("umbel_listen", context))

    def connect(self, context: ConnectContext) -> Stream:
        """Run `umbel_connect`."""
        return cast("Stream", self._call("umbel_connect", context))

    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        """Run `umbel_pair`."""
        return cast("tuple[Stream, Stream]", self._call("umbel_pair", context))

    def adopt(self, context: AdoptContext) -> Stream | Listener:
        """Run `umbel_adopt`."""
        function = cast(
            "Callable[[AdoptContext], Stream | Listener]", self._own("umbel_adopt")
        )
        if not is_wrapped("umbel_adopt") or not is_open(context.fd):
            return run_hook("umbel_adopt", context, function)

        # A wrapper may refuse what the owner has adopted. That is aborted then, while
        # *fd* must still be the caller's: so the owner gets a copy of it.
        def adopt(given: AdoptContext) -> Stream | Listener:
            copies.append(copy := os.dup(given.fd))
            try:
                return function(
                    AdoptContext(given.address, copy, given.is_listener, given.state)
                )
            except BaseException:
                os.close(copies.pop())
                raise

        copies: list[int] = []
        adopted = run_hook("umbel_adopt", context, adopt)
        if copies:
            os.close(context.fd)
        return adopted

    def close(self, context: CloseContext) -> CloseReport:
        """Run `umbel_close`, or the standard shutdown if the plugin has none."""
        return run_hook("umbel_close", context, self._close)

    def observed(self, hook: str, context: C, call: Callable[[C], T]) -> T:
        """Run *call*, which core itself does, inside the wrappers of *hook*."""
        return run_hook(hook, context, call)

    def traits(self) -> Traits | None:
        """Run `umbel_traits`: what it declares of itself, None if it does not."""
        function = self.functions.get("umbel_traits")
        return None if function is None else cast("Callable[[], Traits]", function)()

    def can(self, verb: str) -> bool:
        """Tell whether it implements the hook of *verb*."""
        return f"umbel_{verb}" in self.functions

    def _call(self, hook: str, context: C) -> object:
        return run_hook(hook, context, self._own(hook))

    def _own(self, hook: str) -> Callable[[object], object]:
        function = self.functions.get(hook)
        if function is None:
            verb = hook.removeprefix("umbel_")
            message = f"the transport {self.scheme!r} ({self.source}) can't {verb}"
            raise NotSupportedError(message)
        return cast("Callable[[object], object]", function)


def is_open(fd: object) -> bool:
    """Tell whether *fd* is an open descriptor."""
    if not isinstance(fd, int):
        return False
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True


_transports: Final[dict[str, Transport]] = {}
_failures: Final[dict[str, OSError]] = {}


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
                _failures[scheme] = error
                raise
            _failures.pop(scheme, None)
        return _transports[scheme]


def _make(plugin: object, scheme: str, source: str) -> Transport:
    # One plugin may serve several schemes: pluggy knows it once.
    if not plugin_manager().is_registered(plugin):
        register(plugin, f"{TRANSPORTS}:{scheme}", source)
    functions, wrappers = functions_of(plugin)
    problem = ""
    if wrappers:
        problem = f"wraps {', '.join(sorted(wrappers))}: that is for plugins"
    elif not OPENING & functions.keys():
        problem = f"has none of the hooks {', '.join(sorted(OPENING))}"
    if problem:
        plugin_manager().unregister(plugin)
        message = f"{scheme!r} of {source} is no transport: it {problem}"
        raise PluginError(message)
    return Transport(scheme, plugin, source, functions)


def add_transport(plugin: object, scheme: str, source: str = "this program") -> None:
    """Register a transport without a distribution.

    Args:
        plugin: a module or object with hooks (`hookimpl.connect` and others).
        scheme: must be new in this process.
        source: what it is called in messages.

    Raises:
        PluginError: ELIBACC, it breaks the contract.
        OSError: EEXIST, the scheme is in use.
    """
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
        if all(other.plugin is not plugin for other in _transports.values()):
            plugin_manager().unregister(plugin)


class Installed(Record):
    """One line of `umbel transports`."""

    scheme: str
    source: str
    state: str


def installed_transports() -> list[Installed]:
    """List the transports that are installed, and the state of each."""
    lines = []
    for scheme, entries in sorted(installed_entries(True).items()):
        failure = _failures.get(scheme)
        if is_blocked(scheme):
            state = "blocked"
        elif failure is not None:
            state = f"failed: {failure.strerror}"
        else:
            state = "loaded" if scheme in _transports else "not loaded yet"
        lines += [Installed(scheme, source_of(entry), state) for entry in entries]
    return lines
