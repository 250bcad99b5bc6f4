"""Calls that run beside a trial's own: in threads, or in coroutines."""

from __future__ import annotations

import threading
from collections.abc import Callable

import umbel
from umbel.handle import open_handles
from umbel.testing.conformance.expecting import require


class Job:
    """A call that runs beside the trial's own."""

    def __init__(self, call: Callable[[], object], patience: float) -> None:
        self._call = call
        self._patience = patience
        self.is_over = False
        self._value: object = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, and keep what came of it."""
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        self.is_over = True

    def cancel(self) -> None:
        """Cancel it, and wait until it has stopped; a thread can't be."""
        raise NotImplementedError

    def _wait(self) -> None:
        raise NotImplementedError

    def result(self) -> object:
        """Wait for its end; give what it returned, or raise what it raised."""
        self._wait()
        require(self.is_over, f"a call did not end within {self._patience:.0f} s")
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._value
        finally:
            del error  # its traceback must not refer to itself


class ThreadJob(Job):
    """Runs in a thread of its own."""

    def __init__(self, call: Callable[[], object], patience: float) -> None:
        super().__init__(call, patience)
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        self._thread.join(self._patience)


class CoroutineJob(Job):
    """Runs in a coroutine of the trial's own thread."""

    def __init__(self, call: Callable[[], object], patience: float) -> None:
        super().__init__(call, patience)
        self.bundle = umbel.go(self.run)

    def cancel(self) -> None:
        """Cancel it, and wait until it has stopped."""
        umbel.hclose(self.bundle)

    def _wait(self) -> None:
        if self.bundle in open_handles:
            umbel.bundle_wait(self.bundle, umbel.within(self._patience))
