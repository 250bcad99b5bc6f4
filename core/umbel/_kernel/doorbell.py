"""How other threads wake a hub that sleeps in its poller."""

from __future__ import annotations

import os
from _thread import allocate_lock


class Doorbell:
    """A descriptor by which other threads wake a hub that sleeps in poll."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        if hasattr(os, "eventfd"):
            self.fd = self._button = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # pragma: no cover - macOS has no eventfd
            self.fd, self._button = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._button, False)

    def ring(self) -> None:
        """Make `fd` readable. From any thread, also after `close`."""
        with self._lock:
            if self.fd >= 0:
                try:
                    os.write(self._button, b"\1\0\0\0\0\0\0\0")
                except BlockingIOError:
                    pass  # it rings already

    def silence(self) -> None:
        """Make `fd` unreadable again."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Free the descriptors."""
        with self._lock:
            fds = {self.fd, self._button}
            self.fd = self._button = -1
        for fd in fds - {-1}:
            os.close(fd)
