"""The transports of this process: loaded when their scheme is first used.

Hooks are run here, not by pluggy: only the owner's function, inside the wrappers of
observers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, TypeVar, cast

from umbel.discovery import (
    TRANSPORTS,
    choose_entry,
    find_entry,
    import_entry,
    installed_entries,
    is_blocked,
    require_scheme,
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
from umbel.results import (
    LISTENER,
    PAIR,
    REPORT,
    STREAM,
    discard,
    flaw_of,
    is_known_pair,
    known_streams,
)
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

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")
C = TypeVar("C")

_Hook: TypeAlias = "Callable[[C], T] | None"

#: What opens something: a plugin without one of these is no transport.
OPENING: Final = {"umbel_listen", "umbel_connect", "umbel_pair"}


class Transport:
    """A loaded transport: a scheme, and its plugin's hook functions.

    What the functions give is looked at here, inside the wrappers: `results` says how.
    """

    __slots__ = (
        "_adopt",
        "_close",
        "_connect",
        "_listen",
        "_pair",
        "functions",
        "plugin",
        "scheme",
        "source",
    )

    def __init__(
        self, scheme: str, plugin: object, source: str, functions: dict[str, object]
    ) -> None:
        self.scheme = scheme
        self.plugin = plugin
        self.source = source
        self.functions = functions
        # Each gives what it should if its author is right; None: there is none.
        self._listen = cast(
            "_Hook[ListenContext, Listener]", functions.get("umbel_listen")
        )
        self._connect = cast(
            "_Hook[ConnectContext, Stream]", functions.get("umbel_connect")
        )
        self._pair = cast(
            "_Hook[PairContext, tuple[Stream, Stream]]", functions.get("umbel_pair")
        )
        self._adopt = cast(
            "_Hook[AdoptContext, Stream | Listener]", functions.get("umbel_adopt")
        )
        self._close = cast(
            "_Hook[CloseContext, CloseReport]", functions.get("umbel_close")
        )

    def listen(self, context: ListenContext) -> Listener:
        """Run `umbel_listen`."""
        call = self._listen
        if call is None:
            self._refuse("listen")
        return run_hook(
            "umbel_listen", context, lambda c: self.sound("listen", call(c), LISTENER)
        )

    def connect(self, context: ConnectContext) -> Stream:
        """Run `umbel_connect`."""
        if self._connect is None:
            self._refuse("connect")
        return run_hook("umbel_connect", context, self._run_connect)

    def _run_connect(self, context: ConnectContext) -> Stream:
        assert self._connect is not None
        stream = self._connect(context)
        if type(stream) not in known_streams:
            self.sound("connect", stream, STREAM)
        return stream

    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        """Run `umbel_pair`."""
        if self._pair is None:
            self._refuse("pair")
        return run_hook("umbel_pair", context, self._run_pair)

    def _run_pair(self, context: PairContext) -> tuple[Stream, Stream]:
        assert self._pair is not None
        ends = self._pair(context)
        if not is_known_pair(ends):
            self.sound("pair", ends, PAIR)
        return ends

    def adopt(self, context: AdoptContext) -> Stream | Listener:
        """Run `umbel_adopt`."""
        function = self._adopt
        if function is None:
            self._refuse("adopt")
        kind = LISTENER if context.is_listener else STREAM

        def call(given: AdoptContext) -> Stream | Listener:
            return self.sound("adopt", function(given), kind)

        if not is_wrapped("umbel_adopt") or not is_open(context.fd):
            return run_hook("umbel_adopt", context, call)

        # A wrapper may refuse what the owner has adopted. That is aborted then, while
        # *fd* must still be the caller's: so the owner gets a copy of it.
        def adopt(given: AdoptContext) -> Stream | Listener:
            copies.append(copy := os.dup(given.fd))
            try:
                return call(
                    AdoptContext(given.address, copy, given.is_listener, given.state)
                )
            except BaseException:
                close_if_open(copies.pop())
                raise

        copies: list[int] = []
        adopted = run_hook("umbel_adopt", context, adopt)
        if copies:
            os.close(context.fd)
        return adopted

    def close(self, context: CloseContext) -> CloseReport:
        """Run `umbel_close`, or the standard shutdown if the plugin has none."""
        call = shut_down if self._close is None else self._run_close
        return run_hook("umbel_close", context, call)

    def _run_close(self, context: CloseContext) -> CloseReport:
        assert self._close is not None
        report = self._close(context)
        if type(report) is not CloseReport:
            self.sound("close", report, REPORT)
        return report

    def sound(self, hook: str, found: T, kind: str) -> T:
        """Give *found*, which came of *hook*, if it is of that *kind*.

        Raises:
            PluginError: ELIBACC, it is not. What it is has been aborted.
        """
        flaw = flaw_of(found, kind)
        if flaw:
            discard(found)
            message = (
                f"the hook `{hook}` of the transport {self.scheme!r} ({self.source}) "
                f"gave {flaw}, where {kind} must come"
            )
            raise PluginError(message)
        return found

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

    def _refuse(self, verb: str) -> NoReturn:
        message = f"the transport {self.scheme!r} ({self.source}) can't {verb}"
        raise NotSupportedError(message)


def close_if_open(fd: int) -> None:
    """Close a descriptor, unless what took it over has closed it already."""
    try:
        os.close(fd)
    except OSError:
        pass


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
        if all(other.plugin is not plugin for other in _transports.values()):
            plugin_manager().unregister(plugin)


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
        return f"failed: {failure.strerror}"
    return "not loaded yet" if loaded is None else "loaded"
