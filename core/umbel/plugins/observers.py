"""Observers, which are the plugins that are not transports: loaded, run, taken out."""

from __future__ import annotations

import atexit
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Final, TypeVar

from umbel.errors import PluginError, system_error
from umbel.plugins.discovery import (
    PLUGINS,
    all_entries,
    import_entry,
    lack_of_metadata,
    source_of,
)
from umbel.plugins.policy import listed_in
from umbel.plugins.validation import functions_of, lock, plugin_manager, register

if TYPE_CHECKING:
    from umbel.plugins.wrappers import Wrapper

T = TypeVar("T")
C = TypeVar("C")

_loaded: Final[dict[str, str]] = {}
_wrappers: Final[dict[str, list[Wrapper]]] = {}
#: The hooks that observers implement themselves.
_BARE: Final = frozenset({"umbel_start", "umbel_stop"})
#: Seconds that the end of the program waits for a thread that loads something.
LAST_PATIENCE: Final = 1.0
#: What UMBEL_PLUGINS names is loaded: no connection looks there again.
_is_request_met = False


def run_hook(hook: str, context: C, call: Callable[[C], T]) -> T:
    """Run *call*, the owner's function or core's own, inside the wrappers of *hook*."""
    wrappers = _wrappers.get(hook)
    if not wrappers:
        return call(context)
    from umbel.plugins.wrappers import run_wrapped

    return run_wrapped(hook, wrappers, context, call)


def is_wrapped(hook: str) -> bool:
    """Tell whether a plugin wraps *hook*."""
    return bool(_wrappers.get(hook))


def load_plugins(*names: str) -> None:
    """Load observers (plugins that are not transports), by their entry points' names.

    The environment variable UMBEL_PLUGINS=name,name does the same, when a stream or
    listener is first opened.

    Args:
        names: of entry points in the group "umbel.plugins.v1". One that is loaded
            already stays as it is.

    Raises:
        PluginError: ELIBACC, none of that name is installed, it failed to load, or it
            implements a transport's hook.
        OSError: EEXIST, two distributions bring it; or what its `start` raised.

    Source:
        own.
    """
    if not names:
        return
    with lock:
        for name in names:
            _require_name(name)
            if name in _loaded:
                continue
            known = all_entries().select(group=PLUGINS)
            found = known.select(name=name)
            entries = {(source_of(entry), entry.value): entry for entry in found}
            if not entries:
                installed = ", ".join(sorted(known.names)) or "none"
                message = f"no plugin {name!r} is installed: there is {installed}"
                if advice := lack_of_metadata():
                    message += f"; {advice}"
                raise PluginError(message)
            if len(entries) > 1:
                sources = " and ".join(sorted(source for source, _ in entries))
                message = f"{sources} both bring a plugin {name!r}: uninstall one"
                raise system_error(errno.EEXIST, message)
            ((source, _), entry) = entries.popitem()
            add_plugin(import_entry(entry), name, source)


def _require_name(name: object) -> None:
    if not isinstance(name, str):
        message = f"{name!r} is no name: give each by itself, such as 'trace'"
        raise TypeError(message)


def load_requested() -> None:
    """Load the plugins that UMBEL_PLUGINS names, once."""
    global _is_request_met  # noqa: PLW0603 - once
    if not _is_request_met:
        load_plugins(*listed_in("UMBEL_PLUGINS"))
        _is_request_met = True


def add_plugin(plugin: object, name: str, source: str = "this program") -> None:
    """Register an observer without an entry point.

    Args:
        plugin: a module or object with wrappers (`hookimpl.close.wrapper` and others).
        name: what it is called in messages; must be new.
        source: the distribution that it comes from.

    Raises:
        PluginError: ELIBACC, it breaks the contract, implements a transport's hook, or
            has the name of another.
        OSError: what its `start` raised; it is not loaded then.
    """
    from umbel.plugins.wrappers import Wrapper

    with lock:
        register(plugin, f"{PLUGINS}:{name}", source)
        own, wrappers = functions_of(plugin)
        flaw = _flaw_of(own, wrappers)
        if flaw:
            plugin_manager().unregister(plugin)
            message = f"plugin {name!r} of {source} {flaw}"
            raise PluginError(message)
        for hook, functions in wrappers.items():
            # A new list: another thread may be running the old one.
            new = [Wrapper(name, function) for function in functions]
            _wrappers[hook] = [*_wrappers.get(hook, ()), *new]
        _loaded[name] = source
        try:
            _run_bare(own, "start", name)
        except BaseException:
            _take_out(name, plugin)
            raise


def _flaw_of(own: Mapping[str, object], wrappers: Mapping[str, object]) -> str:
    """Say what keeps a plugin with these functions from being an observer."""
    greedy = sorted(own.keys() - _BARE)
    if greedy:
        hook = greedy[0].removeprefix("umbel_")
        advice = f"an observer wraps, by @hookimpl.{hook}.wrapper"
        if hook == "traits":
            advice = "that is for transports"
        return f"implements {', '.join(greedy)} itself: {advice}"
    bare = sorted(wrappers.keys() & {*_BARE, "umbel_traits"})
    if bare:
        return f"wraps {', '.join(bare)}, which nothing can wrap"
    if not own and not wrappers:
        return "has no hooks: mark its functions, such as by @hookimpl.close.wrapper"
    return ""


def remove_plugin(name: str) -> None:
    """Remove an observer again. What its `stop` raises is logged.

    Args:
        name: the one that it was added or loaded by.

    Raises:
        PluginError: ELIBACC, none of that name is loaded.
    """
    with lock:
        if name not in _loaded:
            loaded = ", ".join(sorted(_loaded)) or "none"
            message = f"no plugin {name!r} is loaded: there is {loaded}"
            raise PluginError(message)
        plugin = plugin_manager().get_plugin(f"{PLUGINS}:{name}")
        own, _ = functions_of(plugin)
        _take_out(name, plugin)
        try:
            _run_bare(own, "stop", name)
        except Exception:
            import logging

            logging.getLogger("umbel").exception("plugin %r: its stop failed", name)


def _take_out(name: str, plugin: object) -> None:
    plugin_manager().unregister(plugin)
    for hook in list(_wrappers):
        _wrappers[hook] = [w for w in _wrappers[hook] if w.plugin_name != name]
    _loaded.pop(name, None)


def _run_bare(own: Mapping[str, object], hook: str, name: str) -> None:
    function = own.get(f"umbel_{hook}")
    if not callable(function):
        return
    result = function()
    if isinstance(result, (CoroutineType, GeneratorType)):
        from umbel.plugins.results import discard, tell

        discard(result)
        message = f"{hook} of plugin {name!r} did not run: it gave {tell(result)}"
        raise PluginError(message)


@atexit.register
def _stop_plugins() -> None:
    # A daemon thread may be in a `start`, or an import, that never ends.
    if not _loaded or not lock.acquire(timeout=LAST_PATIENCE):
        return
    try:
        _stop_each(iter(tuple(_loaded)))
    finally:
        lock.release()


def _stop_each(names: Iterator[str]) -> None:
    for name in names:
        try:
            remove_plugin(name)
        finally:
            _stop_each(names)  # the others, whatever ends the stop of one


# A child that was forked while another thread loads something would else find the lock
# held for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )
