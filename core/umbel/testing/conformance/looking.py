"""What can be told of bytes by their place, and of this process by its descriptors."""

from __future__ import annotations

import os


def pattern(size: int) -> bytes:
    """Make *size* bytes in which every position can be told from its neighbours."""
    import array

    return array.array("I", range(size // 4 + 1)).tobytes()[:size]


def open_descriptors() -> set[int]:
    """List the descriptors of this process."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # that of the listing itself
        found.add(int(name))
    return found
