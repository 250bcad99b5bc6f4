"""How other threads, and signals, wake a hub that sleeps in its poller."""

from __future__ import annotations

import os
from _thread import RLock


class Doorbell:
    """A descriptor by which other threads wake a hub that sleeps in poll.

    Attributes:
        fd: readable while it rings; -1 once closed.
        hears_signals: each signal rings it.
    """

    def __init__(self, *, hears_signals: bool = False) -> None:
        """Make one.

        Args:
            hears_signals: each signal rings it, whichever thread it comes to, and also
                just before the sleep begins. Only in the main thread.
        """
        # A signal's handler may ring while its thread is ringing.
        self._lock = RLock()
        self._process = os.getpid()
        self.hears_signals = False
        if hasattr(os, "eventfd") and not hears_signals:
            self.fd = self._button = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # an eventfd takes no single bytes, and macOS has none
            self.fd, self._button = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._button, False)
        if hears_signals:
            self.hear_signals()

    def hear_signals(self) -> None:
        """Have each signal ring it; a loop that has been here may have ended that."""
        from signal import set_wakeup_fd

        other = set_wakeup_fd(self._button, warn_on_full_buffer=False)
        self.hears_signals = other in (-1, self._button)
        if not self.hears_signals:
            set_wakeup_fd(other)  # that of a loop which runs here: it does the same

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

    @property
    def is_inherited(self) -> bool:
        """Whether another process has made it, which this one was forked from."""
        return os.getpid() != self._process

    def close(self) -> None:
        """Free the descriptors."""
        if self.is_inherited:
            self._free()  # who held the lock when we were forked away is not here
            return
        with self._lock:
            self._free()

    def _free(self) -> None:
        if self.hears_signals:
            self._hear_no_more()
        fds = {self.fd, self._button}
        self.fd = self._button = -1
        for fd in fds - {-1}:
            os.close(fd)

    def _hear_no_more(self) -> None:
        from signal import set_wakeup_fd

        self.hears_signals = False
        try:
            other = set_wakeup_fd(-1)
        except ValueError:
            return  # not the main thread: it was forked away
        if other != self._button:
            set_wakeup_fd(other)  # a loop's, which took it over
