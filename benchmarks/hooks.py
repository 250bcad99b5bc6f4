"""What a handle costs: hmake and close, above the object's own work, in one run.

    python benchmarks/hooks.py

The object does nothing when it is closed, so that all that is left is umbel's: the
entry in the table, the check for being canceled, where it was opened, and finding the
way back. What a hook of a transport costs follows, without and with a plugin that
wraps it. Of many runs the least is shown, as whatever else the machine does only adds.
"""

import socket
import timeit
from collections.abc import Callable, Generator
from contextlib import contextmanager

import umbel
from umbel.plugins.observers import add_plugin, remove_plugin, run_hook
from umbel.spi import (
    Address,
    CloseContext,
    CloseReport,
    SocketStream,
    Wrapped,
    hookimpl,
)

#: Few enough for a run that nothing else of the machine interrupts.
CALLS = 1_000
RUNS = 800
#: Microseconds that are allowed above the object's own work.
ALLOWED = 1.0


class Idle:
    """An object whose close does nothing."""

    def query(self, kind: type[object]) -> None:
        return None

    def close(self) -> None:
        pass


class Watching:
    @hookimpl.close.wrapper
    def closing(self, context: CloseContext) -> Wrapped[CloseReport]:
        yield
        return None


def microseconds(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=CALLS, repeat=RUNS)) / CALLS * 1e6


@contextmanager
def watched() -> Generator[None]:
    add_plugin(Watching(), "watching")
    try:
        yield
    finally:
        remove_plugin("watching")


def directly() -> None:
    made = Idle()
    made.close()


def by_handle() -> None:
    umbel.close(umbel.hmake(Idle()))


def main() -> None:
    direct, ours = microseconds(directly), microseconds(by_handle)
    print(
        f"hmake and close: {ours:.2f} us, the methods alone {direct:.2f} us "
        f"({ours / direct:.1f} times): {ours - direct:.2f} us above, "
        f"{ALLOWED:.2f} allowed"
    )
    report = CloseReport()
    left, right = socket.socketpair()
    right.close()
    stream = SocketStream(left)
    context = CloseContext(1, stream, -1, Address("idle", ""))

    def shut_down(_: CloseContext) -> CloseReport:
        return report

    def by_hook() -> None:
        run_hook("umbel_close", context, shut_down)

    alone, unwatched = microseconds(lambda: shut_down(context)), microseconds(by_hook)
    with watched():
        wrapped = microseconds(by_hook)
    print(
        f"a hook: {unwatched - alone:.2f} us, with a wrapper {wrapped - alone:.2f} us"
    )
    stream.abort()


if __name__ == "__main__":
    main()
