"""Hooks of a module, and arguments of what `umbel.spi` gives transports."""

from __future__ import annotations

from collections.abc import Generator

from umbel.spi import (
    BrokenStreamError,
    CloseContext,
    CloseReport,
    ConnectContext,
    ListenContext,
    Listener,
    Readiness,
    Stream,
    Wrapped,
    hookimpl,
    shut_down,
    system_error,
    take_options,
)


@hookimpl.connect  # error
def other_name(ctx: ConnectContext) -> Stream:
    raise NotImplementedError


@hookimpl.listen  # error
def other_result(context: ListenContext) -> Stream:
    raise NotImplementedError


@hookimpl.close  # error
def other_type(context: ListenContext) -> CloseReport:
    raise NotImplementedError


@hookimpl.traits  # error
def nothing() -> None:
    raise NotImplementedError


@hookimpl.close.wrapper  # error
def no_generator(context: CloseContext) -> CloseReport:
    raise NotImplementedError


@hookimpl.close.wrapper  # error
def other_wrapped(context: CloseContext) -> Wrapped[Stream]:
    return (yield None)


@hookimpl.close.wrapper  # error
def other_generator(context: CloseContext) -> Generator[int, None, None]:
    yield 5


@hookimpl.traits.wrapper  # error
def no_such_wrapper(context: ListenContext) -> Wrapped[Listener]:
    return (yield None)


def helpers(context: ConnectContext) -> None:
    take_options(context.options, size="int")  # error
    take_options(context)  # error
    shut_down(context)  # error
    Readiness("3")  # error
    Readiness(3).wait_in(0.5)  # error
    Readiness(3).wait_in()  # error
    raise system_error("EINVAL", "a name is no number")  # error


def fail() -> None:
    raise BrokenStreamError(104)  # error
