"""Plugins as pluggy knows them: it validates and lists their hooks, and runs none."""

from __future__ import annotations

from _thread import RLock
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from umbel.errors import PluginError

if TYPE_CHECKING:
    from pluggy import HookCaller, HookImpl, PluginManager

    from umbel.plugins.wrappers import WrapperFunction

#: Held while something is loaded or taken out.
lock: Final = RLock()
_manager: PluginManager | None = None


def plugin_manager() -> PluginManager:
    """Give the one pluggy manager, made on first use: it is slow to import."""
    global _manager  # noqa: PLW0603 - the one
    if _manager is None:
        import pluggy

        from umbel.plugins import hookspecs

        _manager = pluggy.PluginManager("umbel")
        _manager.add_hookspecs(hookspecs)
    return _manager


def register(plugin: object, name: str, source: str) -> None:
    """Have pluggy validate *plugin*.

    Raises:
        PluginError: ELIBACC, a hook is unknown, or has other parameters; or another
            plugin has its name, or equals it; or it is a class, and not an object.
    """
    if isinstance(plugin, type) or plugin is None:
        what = "nothing" if plugin is None else "a class: make an object of it"
        message = f"{name!r} of {source} must be an object with hooks, and is {what}"
        raise PluginError(message)
    manager = plugin_manager()
    if manager.has_plugin(name):
        message = f"{name!r} of {source}: another plugin of that name is loaded"
        raise PluginError(message)
    try:
        known = manager.get_name(plugin)
        if known is not None:  # pluggy compares by ==, as dataclasses define it
            message = f"it is, or equals, the plugin {known!r}, which is loaded"
            raise ValueError(message)
        manager.register(plugin, name)
        manager.check_pending()
        _check_functions(plugin)
    except Exception as error:  # pluggy looks at all of its attributes
        if manager.has_plugin(name):
            manager.unregister(name=name)
        flaw = ", ".join(str(error).splitlines()) or type(error).__name__
        message = f"{name!r} of {source} breaks the plugin contract: {flaw}"
        raise PluginError(message) from error


def _check_functions(plugin: object) -> None:
    # pluggy lets a function take less than its hook gives, and a plugin have several.
    from inspect import signature

    for caller, ours in _functions_by_hook(plugin):
        given = () if caller.spec is None else caller.spec.argnames
        own = sorted(found.function.__name__ for found in ours if not found.wrapper)
        if len(own) > 1:
            message = f"{' and '.join(own)} are both for {caller.name}: leave one"
            raise ValueError(message)
        for found in ours:
            try:
                signature(found.function).bind(*given)
            except (TypeError, ValueError) as error:
                wanted = f"`{given[0]}` by position" if given else "nothing"
                message = f"{caller.name} must take {wanted}: {error}"
                raise ValueError(message) from None


def _functions_by_hook(plugin: object) -> Iterator[tuple[HookCaller, list[HookImpl]]]:
    for caller in plugin_manager().get_hookcallers(plugin) or []:
        yield caller, [f for f in caller.get_hookimpls() if f.plugin is plugin]


def functions_of(
    plugin: object,
) -> tuple[dict[str, object], dict[str, list[WrapperFunction]]]:
    """Give a registered plugin's functions by hook: its own, and its wrappers.

    It may have several wrappers of a hook, given in the order of their writing.
    """
    own: dict[str, object] = {}
    wrappers: dict[str, list[WrapperFunction]] = {}
    for caller, ours in _functions_by_hook(plugin):
        for found in sorted(ours, key=_line_of):
            if found.wrapper:
                function = cast("WrapperFunction", found.function)
                wrappers.setdefault(caller.name, []).append(function)
            else:
                own[caller.name] = found.function
    return own, wrappers


def _line_of(found: HookImpl) -> int:
    code = getattr(found.function, "__code__", None)
    return getattr(code, "co_firstlineno", 0)
