"""The progress line: how many bytes, and how fast."""

from __future__ import annotations

import os
import sys
import time
from typing import Final, TextIO

import umbel

INTERVAL: Final = 0.25


class Meter:
    """Counts bytes, and shows them on a terminal while `show` runs."""

    def __init__(self, output: int, screen: TextIO | None = None) -> None:
        """Count; *output* is the descriptor to which what is received goes."""
        self.sent = 0
        self.received = 0
        self._screen = sys.stderr if screen is None else screen
        # On a terminal that shows what the peer sends, it would overwrite that.
        self._is_shown = self._screen.isatty() and not os.isatty(output)
        self._start = time.monotonic()
        self._has_shown = False

    def show(self) -> None:
        """Redraw the line until canceled; return at once where it is not shown."""
        while self._is_shown:
            umbel.msleep(umbel.within(INTERVAL))
            self._has_shown = True
            self._write(self._line())

    def finish(self) -> None:
        """Leave the last figures on the screen, if any were shown."""
        if self._has_shown:
            self._write(self._line() + "\n")

    def _write(self, text: str) -> None:
        try:
            self._screen.write(text)
            self._screen.flush()
        except OSError:  # the terminal is gone, which is no failure of the transfer
            self._is_shown = self._has_shown = False

    def _line(self) -> str:
        seconds = time.monotonic() - self._start
        rate = (self.sent + self.received) / max(seconds, 0.001)
        return (
            f"\r{_size(self.sent)} sent, {_size(self.received)} received, "
            f"{_size(rate)}/s in {seconds:.1f} s\x1b[K"
        )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
