"""Which distributions bring which transport.

A transport is found by entry point; the entry's name is the scheme. Nothing of a
distribution is imported to find it.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from umbel.errors import (
    NO_DESCRIPTOR,
    PluginError,
    UnknownTransportError,
    system_error,
)
from umbel.plugins.policy import preferred
from umbel.values.address import NO_SCHEME, is_scheme

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint, EntryPoints

#: The major version of the plugin contract, which is part of the groups' names, so
#: that a plugin for another one is never imported.
API_VERSION: Final = 1
TRANSPORTS: Final = f"umbel.transports.v{API_VERSION}"
PLUGINS: Final = f"umbel.plugins.v{API_VERSION}"

#: The version of an umbel that is there, and not installed.
UNKNOWN: Final = "unknown"

#: Installed schemes that are named when one is unknown, the most alike first.
NEAREST: Final = 5


_found: dict[str, list[EntryPoint]] | None = None


def installed_entries(again: bool = False) -> dict[str, list[EntryPoint]]:
    """Give the entry points of each scheme; looked up once, unless asked again."""
    global _found  # noqa: PLW0603 - the one cache of what is installed
    if _found is None or again:
        seen: dict[str, dict[tuple[str, str], EntryPoint]] = {}
        for entry in all_entries().select(group=TRANSPORTS):
            # A distribution that is on the path twice is found twice.
            seen.setdefault(entry.name, {})[source_of(entry), entry.value] = entry
        _found = {scheme: list(entries.values()) for scheme, entries in seen.items()}
    return _found


def all_entries() -> EntryPoints:
    """Give the entry points of all distributions, whatever they are for."""
    from importlib.metadata import EntryPoints, distributions, entry_points

    try:
        # In Python 3.11 of another class, which has what is used here.
        found_by_python: object = entry_points()
        return cast("EntryPoints", found_by_python)
    except Exception:  # noqa: BLE001 - a list that can't be read hides no other
        found: list[EntryPoint] = []
        seen: set[str] = set()
        for dist in distributions():
            name = _name_of(dist)
            if name in seen:
                continue  # the first on the path counts
            seen.update([name] if name else [])
            try:
                found += dist.entry_points
            except Exception as error:  # noqa: BLE001 - likewise
                where = name or dist.locate_file("")
                message = f"the entry points of {where} can't be read: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
        return EntryPoints(found)


def find_entry(scheme: str) -> EntryPoint:
    """Find the one entry point that brings *scheme*.

    Raises:
        UnknownTransportError: EPROTONOSUPPORT, none does, or not the preferred one.
        PluginError: ELIBACC, one does for another version of the contract, or its name
            can't be a scheme.
        OSError: EEXIST, two distributions do, and none is preferred.
    """
    entries = installed_entries().get(scheme) or installed_entries(True).get(scheme)
    if not entries:
        raise _unknown(scheme)
    require_scheme(scheme, source_of(entries[0]))
    chosen = choose_entry(scheme, entries)
    if chosen is None:
        raise _undecided(scheme, entries)
    if len(entries) > 1 and scheme not in preferred:
        others = [source_of(entry) for entry in entries if entry is not chosen]
        warnings.warn(
            f"the built-in transport {scheme!r} is used, not that of "
            f"{', '.join(others)}: umbel.prefer chooses another",
            RuntimeWarning,
            stacklevel=2,
        )
    return chosen


def require_scheme(name: str, source: str) -> None:
    """Make sure that a transport's name can stand in front of an address.

    Raises:
        PluginError: ELIBACC, it can't.
    """
    if not is_scheme(name):
        message = f"the transport {name!r} of {source} {NO_SCHEME}: rename it"
        raise PluginError(message)


def choose_entry(scheme: str, entries: Sequence[EntryPoint]) -> EntryPoint | None:
    """Give the one of *entries* that is used, None if that is undecided.

    It is the preferred one, the only one, or the built-in one.
    """
    if scheme in preferred:
        wanted = _canonical(preferred[scheme])
        chosen = [
            entry for entry in entries if _canonical(_name_of(entry.dist)) == wanted
        ]
    elif len(entries) == 1:
        chosen = [*entries]
    else:
        chosen = [entry for entry in entries if _name_of(entry.dist) == "umbel"]
    return chosen[0] if chosen else None


def _undecided(scheme: str, entries: Sequence[EntryPoint]) -> OSError:
    names = sorted(source_of(entry) for entry in entries)
    if scheme in preferred:
        message = (
            f"for {scheme!r} the distribution {preferred[scheme]!r} is preferred, "
            f"which does not bring it: {', '.join(names)} would"
        )
        return UnknownTransportError(message)
    message = (
        f"{' and '.join(names)} both bring a transport {scheme!r}: uninstall one, or "
        "choose one by umbel.prefer"
    )
    return system_error(errno.EEXIST, message)


def _canonical(name: str) -> str:
    # As packaging.utils.canonicalize_name does: some-Name, some_name and some.name.
    return name.lower().replace("_", "-").replace(".", "-")


def _unknown(scheme: str) -> OSError:
    import difflib  # slow to import, and for errors only

    if not is_scheme(scheme):  # an address, perhaps, for `pair`
        message = f"{scheme!r} {NO_SCHEME}: give a scheme alone, such as 'mem'"
        return UnknownTransportError(message)
    known = all_entries()
    for group in ("umbel.transports", "umbel.plugins.v1"):
        for entry in known.select(group=group, name=scheme):
            message = (
                f"{scheme!r} of {source_of(entry)} is in the entry-point group "
                f"{group!r}: those of transports are in {TRANSPORTS!r}"
            )
            return PluginError(message)
    for group in sorted(known.groups):
        if group.startswith("umbel.transports.v") and group != TRANSPORTS:
            for entry in known.select(group=group, name=scheme):
                version = group.removeprefix("umbel.transports.v")
                message = (
                    f"{scheme!r} of {source_of(entry)} is for version {version} of the "
                    f"plugin contract, and this umbel has {API_VERSION}: upgrade the "
                    "older of the two"
                )
                return PluginError(message)
    installed = sorted(installed_entries())
    near = difflib.get_close_matches(scheme, installed, len(installed) or 1, 0)
    # Most often it was to be one of ours: unix:/run/x.sock, localhost:80.
    advice = lack_of_metadata() or (
        "write 'ipc:/folder/x.sock' or 'tcp://host:port', or install the distribution "
        f"that brings {scheme!r}"
    )
    message = (
        f"no transport for {scheme!r} is installed: there is "
        f"{', '.join(near[:NEAREST]) or 'none'}; {advice}"
    )
    return UnknownTransportError(message)


def lack_of_metadata() -> str:
    """Say why none of umbel's own plugins are found; "" if they are."""
    if own_version() != UNKNOWN:
        return ""
    return (
        "umbel's own are not found without its metadata (umbel-*.dist-info): install "
        "umbel, or put that into the frozen program or archive"
    )


def own_version() -> str:
    """Give umbel's version; UNKNOWN where its metadata is not to be found."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("umbel")
    except PackageNotFoundError:
        return UNKNOWN


def _name_of(dist: Distribution | None) -> str:
    if dist is None:
        return ""
    try:
        metadata = dist.metadata  # once: each time the file is read and parsed
    except Exception:  # noqa: BLE001 - Python 3.15: one that was only half removed has none
        return ""
    # Before, it has no name, which it is deprecated to ask for.
    if "Name" in metadata:
        return metadata["Name"]
    return ""


def source_of(entry: EntryPoint) -> str:
    """Name the distribution of an entry point, with its version."""
    name = _name_of(entry.dist)
    if entry.dist is None:
        return "an unknown distribution"
    if not name:
        return f"an unknown distribution in {entry.dist.locate_file('')}"
    return f"{name} {entry.dist.version}"


def import_entry(entry: EntryPoint) -> object:
    """Import what *entry* points to.

    Raises:
        PluginError: ELIBACC, with the distribution's name and the cause.
    """
    source = source_of(entry)
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # a plugin does not end the program
        if isinstance(error, OSError) and error.errno in NO_DESCRIPTOR:
            raise  # nothing is wrong with the plugin
        message = (
            f"{entry.name!r} ({entry.value}) of {source} can't be imported: "
            f"{type(error).__name__}: {error}"
        )
        if _name_of(entry.dist) != "umbel":  # whose own say what to do
            message += f"; mend or uninstall {source}"
        raise PluginError(message) from error
