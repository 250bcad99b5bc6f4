"""Transports that are there for a while only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from umbel.plugins.registry import add_transport, remove_transport


@contextmanager
def transport_at_hand(plugin: object, scheme: str) -> Iterator[None]:
    """Have *plugin* serve *scheme* within a `with` block, without a distribution.

    Args:
        plugin: a transport: an object or module with hooks.
        scheme: not loaded yet in this process. One that is installed is loaded when it
            is first used: until then *plugin* may stand in for it.

    Raises:
        PluginError: ELIBACC, the plugin breaks the contract.
        OSError: EEXIST, a transport for the scheme is loaded.
    """
    add_transport(plugin, scheme)
    try:
        yield
    finally:
        remove_transport(scheme)
