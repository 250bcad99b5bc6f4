"""Wrappers that yield, or return, what they must not."""

from __future__ import annotations

from umbel.spi import (
    Answered,
    CloseContext,
    CloseReport,
    ConnectContext,
    Outcome,
    PairContext,
    Stream,
    Wrapped,
    hookimpl,
)


class Wrong:
    @hookimpl.close.wrapper
    def yields_a_number(self, context: CloseContext) -> Wrapped[CloseReport]:
        outcome = yield 5  # error
        return outcome

    @hookimpl.close.wrapper
    def answers_though_it_only_watches(
        self, context: CloseContext
    ) -> Wrapped[CloseReport]:
        outcome = yield Outcome(CloseReport())  # error
        return outcome

    @hookimpl.close.wrapper
    def answers_with_the_value(self, context: CloseContext) -> Answered[CloseReport]:
        outcome = yield CloseReport()  # error
        return outcome

    @hookimpl.connect.wrapper
    def answers_with_another(self, context: ConnectContext) -> Answered[Stream]:
        outcome = yield Outcome(CloseReport())  # error
        return outcome

    @hookimpl.connect.wrapper  # error
    def answers_another_hook(self, context: ConnectContext) -> Answered[CloseReport]:
        return (yield None)

    @hookimpl.close.wrapper
    def returns_a_report(self, context: CloseContext) -> Wrapped[CloseReport]:
        yield None
        return CloseReport()  # error

    @hookimpl.connect.wrapper
    def returns_another(self, context: ConnectContext) -> Wrapped[Stream]:
        yield None
        return Outcome(value=CloseReport())  # error

    @hookimpl.connect.wrapper
    def takes_it_for_the_value(self, context: ConnectContext) -> Wrapped[Stream]:
        outcome = yield None
        outcome.abort()  # error
        outcome.value.abort()  # error
        return outcome

    @hookimpl.pair.wrapper
    def error_of_another_type(
        self, context: PairContext
    ) -> Wrapped[tuple[Stream, Stream]]:
        yield None
        return Outcome(error="it failed")  # error

    @hookimpl.close.wrapper  # error
    def another_context(self, context: ConnectContext) -> Wrapped[CloseReport]:
        return (yield None)

    @hookimpl.close.wrapper  # error
    def another_name(self, closing: CloseContext) -> Wrapped[CloseReport]:
        return (yield None)

    @hookimpl.clos.wrapper  # error
    def misspelt(self, context: CloseContext) -> Wrapped[CloseReport]:
        return (yield None)

    @hookimpl.close.wraper  # error
    def misspelt_too(self, context: CloseContext) -> Wrapped[CloseReport]:
        return (yield None)

    @hookimpl.done.wrapper  # error
    def of_another_hook(self, context: CloseContext) -> Wrapped[CloseReport]:
        return (yield None)
