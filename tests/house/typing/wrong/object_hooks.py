"""Hooks of an object: misspelt, or with a wrong parameter or result."""

from __future__ import annotations

from umbel.spi import (
    AcceptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    Traits,
    hookimpl,
)


class Misspelt:
    @hookimpl.conect  # error
    def connect(self, context: ConnectContext) -> Stream:
        raise NotImplementedError

    @hookimpl.umbel_listen  # error
    def listen(self, context: ListenContext) -> Listener:
        raise NotImplementedError


class OtherParameters:
    @hookimpl.listen  # error
    def other_name(self, ctx: ListenContext) -> Listener:
        raise NotImplementedError

    @hookimpl.listen  # error
    def other_type(self, context: ConnectContext) -> Listener:
        raise NotImplementedError

    @hookimpl.connect  # error
    def none(self) -> Stream:
        raise NotImplementedError

    @hookimpl.connect  # error
    def more(self, context: ConnectContext, deadline: int) -> Stream:
        raise NotImplementedError

    @hookimpl.pair  # error
    def positional(self, context: PairContext, /) -> tuple[Stream, Stream]:
        raise NotImplementedError

    @hookimpl.traits  # error
    def with_context(self, context: PairContext) -> Traits:
        raise NotImplementedError

    @hookimpl.start  # error
    def with_name(self, name: str) -> None:
        raise NotImplementedError


class OtherResults:
    @hookimpl.listen  # error
    def stream(self, context: ListenContext) -> Stream:
        raise NotImplementedError

    @hookimpl.connect  # error
    def maybe(self, context: ConnectContext) -> Stream | None:
        raise NotImplementedError

    @hookimpl.pair  # error
    def one(self, context: PairContext) -> Stream:
        raise NotImplementedError

    @hookimpl.pair  # error
    def many(self, context: PairContext) -> list[Stream]:
        raise NotImplementedError

    @hookimpl.close  # error
    def nothing(self, context: CloseContext) -> None:
        raise NotImplementedError

    @hookimpl.close  # error
    async def later(self, context: CloseContext) -> CloseReport:
        raise NotImplementedError

    @hookimpl.traits  # error
    def words(self) -> dict[str, str]:
        raise NotImplementedError

    @hookimpl.stop  # error
    def truth(self) -> bool:
        raise NotImplementedError


class NotForTransports:
    @hookimpl.accept  # error
    def accept(self, context: AcceptContext) -> Stream:
        raise NotImplementedError


class Bodies:
    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        print(context.deadline)  # error
        context.backlog = 5  # error
        return context.address  # error

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        context.endpoint.send([], 0)  # error
        return CloseReport(consumed="yes")  # error

    @hookimpl.traits
    def traits(self) -> Traits:
        return Traits(adress="x")  # error
