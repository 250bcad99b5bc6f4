"""A plugin that watches all that it can, and changes some of it."""

from __future__ import annotations

import errno
from typing import assert_type

import umbel
from umbel.plugins import add_plugin, remove_plugin
from umbel.spi import (
    AcceptContext,
    AdoptContext,
    Answered,
    CloseContext,
    CloseReport,
    ConnectContext,
    DoneContext,
    ListenContext,
    Listener,
    Outcome,
    PairContext,
    Stream,
    StreamProxy,
    Wrapped,
    hookimpl,
    is_stream,
)


class Observer:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl.start
    def start(self) -> None:
        self.seen.append("start")

    @hookimpl.stop
    def stop(self) -> None:
        self.seen.append("stop")

    @hookimpl.listen.wrapper
    def listening(self, context: ListenContext) -> Wrapped[Listener]:
        outcome = yield
        assert_type(outcome, Outcome[Listener])
        return outcome

    @hookimpl.connect.wrapper
    def connecting(self, context: ConnectContext) -> Wrapped[Stream]:
        outcome = yield
        assert_type(outcome.value, Stream | None)
        return outcome

    @hookimpl.pair.wrapper
    def pairing(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
        self.seen.append(f"pair {context.scheme}")
        yield
        return None

    @hookimpl.accept.wrapper
    def accepting(self, context: AcceptContext) -> Wrapped[Stream]:
        return (yield)

    @hookimpl.done.wrapper
    def ending(self, context: DoneContext) -> Wrapped[None]:
        self.seen.append(f"done {context.address.scheme}")
        return (yield)

    @hookimpl.connect.wrapper
    def refusing(self, context: ConnectContext) -> Answered[Stream]:
        if context.address.location == "refused":
            refusal = ConnectionRefusedError(errno.ECONNREFUSED, "not that one")
            return (yield Outcome(error=refusal))
        outcome = yield None
        assert_type(outcome, Outcome[Stream])
        return outcome

    @hookimpl.adopt.wrapper
    def adopting(self, context: AdoptContext) -> Wrapped[Stream | Listener]:
        outcome = yield
        found = outcome.value
        if found is None or not is_stream(found):
            return None
        mine = Outcome(StreamProxy(found))
        assert_type(mine, Outcome[StreamProxy])
        return mine

    @hookimpl.close.wrapper
    def closing(self, context: CloseContext) -> Wrapped[CloseReport]:
        outcome = yield
        assert_type(outcome, Outcome[CloseReport])
        if outcome.error is not None:
            return Outcome(error=outcome.error)
        return Outcome(CloseReport(consumed=True, discarded=0))


def main() -> None:
    observer = Observer()
    add_plugin(observer, "observer")
    left, right = umbel.pair("mem")
    with right, left:
        right.done()
        assert umbel.close(left) == umbel.CloseReport(True, 0)
    try:
        umbel.connect("mem://refused")
    except ConnectionRefusedError as error:
        assert error.errno == errno.ECONNREFUSED
    remove_plugin("observer")
    assert observer.seen == ["start", "pair mem", "done mem", "stop"]


if __name__ == "__main__":
    main()
