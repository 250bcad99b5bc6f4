"""Which transports and plugins there are, and how their hooks are run.

Transports are found by entry point; the entry's name is the scheme. One is
imported and registered with pluggy when its scheme is first used. pluggy
validates and lists hooks; running them is done here: the owner's function, alone,
inside the wrappers of plugins that were loaded on request.
"""

from __future__ import annotations

import atexit
import errno
import os
import warnings
from _thread import RLock
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from umbel.errors import (
    NotSupportedError,
    PluginError,
    UnknownTransportError,
    system_error,
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
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pluggy import PluginManager

    from umbel.observe import Wrapper, WrapperFunction

T = TypeVar("T")
C = TypeVar("C")

#: The major version of the plugin contract is part of the groups' names.
TRANSPORTS: Final = "umbel.transports.v1"
PLUGINS: Final = "umbel.plugins.v1"

#: What a transport may implement.
HOOKS: Final = (
    "umbel_listen",
    "umbel_connect",
    "umbel_pair",
    "umbel_adopt",
    "umbel_close",
)
#: Installed schemes that are named when one is unknown, the most alike first.
NEAREST: Final = 5

_lock: Final = RLock()


def _schemes(variable: str) -> set[str]:
    return {name.strip() for name in os.environ.get(variable, "").split(",")} - {""}


_blocked: Final = _schemes("UMBEL_DISABLE")
_allowed: set[str] | None = _schemes("UMBEL_ALLOW") or None


class Transport:
    """A loaded transport: a scheme, and its plugin's hook functions."""

    __slots__ = ("functions", "plugin", "scheme", "source")

    def __init__(
        self, scheme: str, plugin: object, source: str, functions: dict[str, object]
    ) -> None:
        self.scheme = scheme
        self.plugin = plugin
        self.source = source
        self.functions = functions

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
        return cast("Stream | Listener", self._call("umbel_adopt", context))

    def close(self, context: CloseContext) -> CloseReport:
        """Run `umbel_close`, or the standard shutdown if the plugin has none."""
        function = self.functions.get("umbel_close", shut_down)
        return self._run(
            "umbel_close",
            context,
            cast("Callable[[CloseContext], CloseReport]", function),
        )

    def observed(self, hook: str, context: C, call: Callable[[C], T]) -> T:
        """Run *call*, which core itself does, inside the wrappers of *hook*."""
        return self._run(hook, context, call)

    def _call(self, hook: str, context: C) -> object:
        function = cast("Callable[[C], object]", self._function(hook))
        return self._run(hook, context, function)

    def _run(self, hook: str, context: C, call: Callable[[C], T]) -> T:
        wrappers = _wrappers.get(hook)
        if not wrappers:
            return call(context)
        from umbel.observe import run_wrapped

        return run_wrapped(hook, wrappers, context, call)

    def _function(self, hook: str) -> object:
        function = self.functions.get(hook)
        if function is None:
            verb = hook.removeprefix("umbel_")
            message = f"the transport {self.scheme!r} ({self.source}) can't {verb}"
            raise NotSupportedError(message)
        return function


_transports: Final[dict[str, Transport]] = {}
_failures: Final[dict[str, OSError]] = {}
_wrappers: Final[dict[str, list[Wrapper]]] = {}
_loaded_plugins: Final[dict[str, str]] = {}
_found: dict[str, list[EntryPoint]] | None = None
_manager: PluginManager | None = None


def find_transport(scheme: str) -> Transport:
    """Give the transport of *scheme*, imported now if it was not before.

    Raises:
        NotSupportedError: ENOTSUP, it is blocked.
        UnknownTransportError: EPROTONOSUPPORT, none is installed.
        PluginError: ELIBACC, it failed to load.
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
    with _lock:
        if scheme not in _transports:
            try:
                _transports[scheme] = _load_transport(scheme)
            except OSError as error:
                _failures[scheme] = error
                raise
            _failures.pop(scheme, None)
        return _transports[scheme]


def _load_transport(scheme: str) -> Transport:
    entry = _choose(scheme, _discover().get(scheme) or _discover(True).get(scheme))
    source = source_of(entry)
    plugin = _import(entry, source)
    manager = _plugin_manager()
    _register(manager, plugin, f"{TRANSPORTS}:{scheme}", source)
    functions: dict[str, object] = {}
    for hook in HOOKS:
        for found in getattr(manager.hook, hook).get_hookimpls():
            if found.plugin is plugin and not found.wrapper:
                functions[hook] = found.function
    return Transport(scheme, plugin, source, functions)


def _choose(scheme: str, entries: list[EntryPoint] | None) -> EntryPoint:
    if not entries:
        import difflib  # slow to import, and for errors only

        installed = sorted(_discover())
        near = difflib.get_close_matches(scheme, installed, len(installed) or 1, 0)
        message = (
            f"no transport for {scheme!r} is installed: there is "
            f"{', '.join(near[:NEAREST])}; install the distribution that brings "
            f"{scheme!r}"
        )
        raise UnknownTransportError(message)
    if len(entries) == 1:
        return entries[0]
    names = " and ".join(sorted(source_of(entry) for entry in entries))
    for entry in entries:
        if entry.dist is not None and entry.dist.name == "umbel":
            others = [source_of(e) for e in entries if e is not entry]
            warnings.warn(
                f"the built-in transport {scheme!r} is used, not that of "
                f"{', '.join(others)}",
                RuntimeWarning,
                stacklevel=2,
            )
            return entry
    message = f"{names} both bring a transport {scheme!r}: uninstall one"
    raise system_error(errno.EEXIST, message)


def _discover(again: bool = False) -> dict[str, list[EntryPoint]]:
    global _found  # noqa: PLW0603 - the one cache of what is installed
    if _found is None or again:
        from importlib.metadata import entry_points

        seen: dict[str, dict[tuple[str, str], EntryPoint]] = {}
        for entry in entry_points(group=TRANSPORTS):
            # A distribution that is on the path twice is found twice.
            seen.setdefault(entry.name, {})[source_of(entry), entry.value] = entry
        _found = {scheme: list(entries.values()) for scheme, entries in seen.items()}
    return _found


def source_of(entry: EntryPoint) -> str:
    """Name the distribution of an entry point, with its version."""
    if entry.dist is None:
        return "an unknown distribution"
    return f"{entry.dist.name} {entry.dist.version}"


def _import(entry: EntryPoint, source: str) -> object:
    try:
        return entry.load()
    except Exception as error:
        message = (
            f"{entry.name!r} ({entry.value}) of {source} can't be imported: "
            f"{type(error).__name__}: {error}; mend or uninstall {source}"
        )
        raise PluginError(message) from error


def _plugin_manager() -> PluginManager:
    global _manager  # noqa: PLW0603 - made on first use: pluggy is slow to import
    if _manager is None:
        import pluggy

        from umbel import hookspecs

        _manager = pluggy.PluginManager("umbel")
        _manager.add_hookspecs(hookspecs)
    return _manager


def _register(manager: PluginManager, plugin: object, name: str, source: str) -> None:
    from pluggy import PluginValidationError

    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (PluginValidationError, ValueError) as error:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        message = f"{name!r} of {source} breaks the plugin contract: {error}"
        raise PluginError(message) from error


def load_plugins(*names: str) -> None:
    """Load observers and middleware, by the names of their entry points.

    Args:
        names: of entry points in the group "umbel.plugins.v1". One that is loaded
            already stays as it is.

    Raises:
        UnknownTransportError: EPROTONOSUPPORT, none of that name is installed.
        PluginError: ELIBACC, it failed to load, or does more than wrap.
    """
    from importlib.metadata import entry_points

    with _lock:
        for name in names:
            if name in _loaded_plugins:
                continue
            entries = list(entry_points(group=PLUGINS, name=name))
            if not entries:
                installed = sorted(entry_points(group=PLUGINS).names)
                message = f"no plugin {name!r} is installed: there is {installed}"
                raise UnknownTransportError(message)
            source = source_of(entries[0])
            add_plugin(_import(entries[0], source), name, source)


def add_plugin(plugin: object, name: str, source: str = "this program") -> None:
    """Register an observer that is at hand already.

    Args:
        plugin: a module or object with wrappers (`hookimpl(wrapper=True)`).
        name: what it is called in messages; must be new.
        source: the distribution that it comes from.

    Raises:
        PluginError: ELIBACC, it breaks the contract, or does more than wrap.
    """
    from umbel.observe import Wrapper

    with _lock:
        manager = _plugin_manager()
        _register(manager, plugin, f"{PLUGINS}:{name}", source)
        found: list[tuple[str, Wrapper]] = []
        for caller in manager.get_hookcallers(plugin) or []:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                if caller.name in ("umbel_start", "umbel_stop"):
                    continue
                if not implementation.wrapper:
                    manager.unregister(plugin)
                    message = (
                        f"plugin {name!r} of {source} implements {caller.name} itself: "
                        "only the transport may; use hookimpl(wrapper=True)"
                    )
                    raise PluginError(message)
                function = cast("WrapperFunction", implementation.function)
                found.append((caller.name, Wrapper(name, function)))
        for hook, wrapper in found:
            _wrappers.setdefault(hook, []).append(wrapper)
        _loaded_plugins[name] = source
        start = getattr(plugin, "umbel_start", None)
        if start is not None:
            start()


def remove_plugin(name: str) -> None:
    """Take a plugin out again."""
    with _lock:
        plugin = _plugin_manager().unregister(name=f"{PLUGINS}:{name}")
        stop = getattr(plugin, "umbel_stop", None)
        if stop is not None:
            stop()
        for hook in list(_wrappers):
            _wrappers[hook] = [w for w in _wrappers[hook] if w.plugin_name != name]
        _loaded_plugins.pop(name, None)


@atexit.register
def _stop_plugins() -> None:
    for name in list(_loaded_plugins):
        remove_plugin(name)


def is_blocked(scheme: str) -> bool:
    """Tell whether new use of *scheme* is forbidden."""
    if scheme in _blocked or "*" in _blocked:
        return True
    return _allowed is not None and scheme not in _allowed


def block(scheme: str) -> None:
    """Forbid new use of a scheme ("*": of all); open handles keep working.

    New use raises NotSupportedError (ENOTSUP); its plugin is never imported.

    Source:
        libdill's configure option --disable-sockets.
    """
    _blocked.add(scheme)


def allow_only(*schemes: str) -> None:
    """Forbid new use of all schemes but these, replacing an earlier list."""
    global _allowed  # noqa: PLW0603 - process-wide by its nature
    _allowed = set(schemes)


class Installed(Record):
    """One line of `umbel transports`."""

    scheme: str
    source: str
    state: str


def installed_transports() -> list[Installed]:
    """List the transports that are installed, and what became of each."""
    lines = []
    for scheme, entries in sorted(_discover(True).items()):
        failure = _failures.get(scheme)
        if is_blocked(scheme):
            state = "blocked"
        elif failure is not None:
            state = f"failed: {failure.strerror}"
        else:
            state = "loaded" if scheme in _transports else "not loaded yet"
        lines += [Installed(scheme, source_of(entry), state) for entry in entries]
    return lines


def load_requested() -> None:
    """Load the plugins that UMBEL_PLUGINS names, once."""
    names = sorted(_schemes("UMBEL_PLUGINS") - _loaded_plugins.keys())
    if names:
        load_plugins(*names)
