"""What the drivers asyncio and trio share: all tasks of a trial are tasks of a loop.

A behaviour is plain code. It runs in a task, by `aio.run_blocking`, and each verb of
umbel's that may wait is replaced by its twin in `umbel.aio`, awaited in a task of its
own. What is canceled is canceled by the loop's own means, and what a verb then raises
must be the loop's own, too. Behaviours of the awaitable verbs alone, which are written
with `await`, run by `begin`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Final, ParamSpec, Protocol, TypeVar, cast

import umbel
from umbel import aio
from umbel.testing.conformance.expecting import require
from umbel.testing.conformance.jobs import Job
from umbel.testing.conformance.trial import Trial

P = ParamSpec("P")
R = TypeVar("R")


class Event(Protocol):
    """What both loops have: set once, and waited for."""

    def set(self) -> object:
        """Let whoever waits go on."""

    async def wait(self) -> object:
        """Wait until it is set."""


class Limit(Protocol):
    """A timeout, or a cancel scope with a deadline, of the loop's own."""

    async def cuts_off(self, awaitable: Awaitable[object]) -> bool:
        """Await it, and tell whether the limit was reached before it ended."""

    def end_now(self) -> None:
        """Let it be reached now."""


class TaskJob(Job):
    """Runs in a task of the trial's loop.

    Attributes:
        was_canceled: the loop canceled its task, which ended by that.
    """

    was_canceled = False

    def __init__(self, trial: HostedTrial, call: Callable[[], object]) -> None:
        super().__init__(call, trial.patience)
        self.has_begun = False
        self._has_ended = False
        self._ended: Final = trial.new_event()
        self._cancel: Final = trial.start(self._work, self._end)

    async def _work(self) -> None:
        self.has_begun = True
        await aio.run_blocking(self.run)

    def _end(self, was_canceled: bool) -> None:
        self.was_canceled = was_canceled
        self.is_over = self._has_ended = True
        self._ended.set()

    def cancel(self) -> None:
        """Cancel its task, and wait until that has stopped."""
        self._cancel()
        self._wait()

    def _wait(self) -> None:
        if not self._has_ended:
            try:
                aio.wait(self._ended.wait(), umbel.within(self._patience))
            except umbel.DeadlineError:
                pass  # `result` says so


class NativeJob(TaskJob):
    """Awaits a function of the loop's own kind in its task."""

    def __init__(
        self, trial: HostedTrial, function: Callable[[], Awaitable[object]]
    ) -> None:
        self._function = function
        self._cancellation = trial.cancellation
        super().__init__(trial, function)

    async def _work(self) -> None:
        self.has_begun = True
        try:
            self._value = await self._function()
        except self._cancellation as error:
            self._error = error
            raise
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error


class HostedTrial(Trial):
    """All tasks are those of one loop."""

    #: What the loop raises in a task that it cancels.
    cancellation: type[BaseException]
    #: A canceled task is canceled at each call, not at one.
    is_level_triggered = False

    # umbel's verbs.

    def do(self, verb: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
        """Await the twin of *verb*; when canceled, see to it that it was told so."""
        twin = getattr(aio, verb.__name__.removeprefix("_"))
        call = _Call(partial(twin, *args, **named))
        try:
            found = aio.wait(call.make())
        except umbel.Canceled as error:
            if call.has_begun:
                self._check_canceled(verb.__name__, call.error)
                error.bytes_done = getattr(call.error, "bytes_done", 0)
                error.report = getattr(call.error, "report", None)
            raise
        finally:
            call.error = None  # its traceback must not keep what it names
        if isinstance(found, aio.AsyncStreamHandle):
            found = aio.as_blocking(found)
        return cast("R", found)

    def _check_canceled(self, name: str, error: BaseException | None) -> None:
        require(
            isinstance(error, self.cancellation),
            f"a canceled {name} raised {error!r}, not the loop's own cancellation",
        )

    # Tasks.

    def _start(self, call: Callable[[], object]) -> Job:
        return TaskJob(self, call)

    def spawn_cancelable(self, call: Callable[..., object], *args: object) -> TaskJob:
        """Run *call* in a task, and return once it waits."""
        return self._begun(TaskJob(self, partial(call, *args)))

    def begin(self, function: Callable[[], Awaitable[object]]) -> NativeJob:
        """Await *function* in a task, and return once that waits."""
        job = NativeJob(self, function)
        self._begun(job)
        return job

    def _begun(self, job: TaskJob) -> TaskJob:
        self._jobs.append(job)
        self.wait_until(lambda: job.has_begun, "the beginning of a task")
        self.pause(2)  # it may yet be on its way into the wait
        return job

    def _end(self, job: Job) -> None:
        assert isinstance(job, TaskJob)
        if not job.is_over:
            job.cancel()

    # What each kind of loop does in its own way.

    @abstractmethod
    def new_event(self) -> Event:
        """Make an event of the loop's."""

    @abstractmethod
    def start(
        self,
        work: Callable[[], Coroutine[object, object, None]],
        end: Callable[[bool], None],
    ) -> Callable[[], object]:
        """Start a task; when it ends, tell *end* whether it was canceled.

        Returns:
            what cancels it.
        """

    @abstractmethod
    def new_limit(self, seconds: float) -> Limit:
        """Make a limit of so many seconds from now on."""

    @abstractmethod
    async def pass_on(self) -> None:
        """Let the loop's other tasks run."""


class _Call:
    """The call of a verb's twin, and what it raised in its own task."""

    def __init__(self, call: Callable[[], Awaitable[object]]) -> None:
        self._call = call
        self.has_begun = False
        self.error: BaseException | None = None

    async def make(self) -> object:
        self.has_begun = True
        try:
            return await self._call()
        except BaseException as error:
            self.error = error
            raise
