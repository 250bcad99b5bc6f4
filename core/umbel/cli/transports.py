"""`umbel transports`: what is installed, and what became of it."""

from __future__ import annotations

from umbel.plugins.registry import find_transport, installed_transports


def list_transports() -> int:
    """Load every transport that is not blocked, and print one line for each.

    Returns:
        the exit status: 0, also if some failed to load.
    """
    for found in installed_transports():
        if found.state == "not loaded yet":
            try:
                find_transport(found.scheme)
            except OSError:
                pass  # it is in the table below
    rows = [("SCHEME", "DISTRIBUTION", "STATE")]
    rows += [(t.scheme, t.source, t.state) for t in installed_transports()]
    first = max(len(row[0]) for row in rows)
    second = max(len(row[1]) for row in rows)
    for scheme, source, state in rows:
        print(f"{scheme:<{first}}  {source:<{second}}  {state}")
    return 0
