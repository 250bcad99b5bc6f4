"""Bundles against a simple model: what runs, what failed, who was told."""

from __future__ import annotations

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import umbel


class BundleMachine(RuleBasedStateMachine):
    """Coroutines that wait for a word each: go on, fail, or run until canceled."""

    def __init__(self) -> None:
        super().__init__()
        self.bundle_handle = umbel.bundle()
        self.words: dict[int, umbel.ChannelHandle[str]] = {}
        self.failed: list[int] = []
        self.ended: list[int] = []
        self.expected_ended: list[int] = []
        self.count = 0

    def _run(self, number: int, words: umbel.ChannelHandle[str]) -> None:
        try:
            if umbel.chrecv(words) == "fail":
                raise ValueError(number)
        finally:
            self.ended.append(number)
            umbel.hclose(words)

    @rule()
    def go(self) -> None:
        self.count += 1
        mine, theirs = umbel.chmake(str)
        self.words[self.count] = mine
        self.bundle_handle.go(self._run, self.count, theirs)

    @precondition(lambda self: self.words)
    @rule(data=st.data(), word=st.sampled_from(["end", "fail"]))
    def tell(self, data: st.DataObject, word: str) -> None:
        number = data.draw(st.sampled_from(list(self.words)))
        words = self.words.pop(number)
        umbel.chsend(words, word)
        umbel.hclose(words)
        umbel.yield_()
        self.expected_ended.append(number)
        if word == "fail":
            self.failed.append(number)

    @rule()
    def wait(self) -> None:
        if self.words:
            with pytest.raises(umbel.DeadlineError):
                umbel.bundle_wait(self.bundle_handle, 0)
        else:
            self._expect_failures(lambda: umbel.bundle_wait(self.bundle_handle, 0))

    @rule()
    def close(self) -> None:
        self.expected_ended.extend(self.words)
        self._expect_failures(lambda: umbel.hclose(self.bundle_handle))
        for words in self.words.values():
            umbel.hclose(words)
        self.words.clear()
        self.bundle_handle = umbel.bundle()

    def _expect_failures(self, call: object) -> None:
        told: list[object] = []
        try:
            call()  # type: ignore[operator]
        except ExceptionGroup as group:
            told = [error.args[0] for error in group.exceptions]
        assert told == self.failed
        self.failed.clear()

    @invariant()
    def what_ended_is_what_the_model_says(self) -> None:
        # A coroutine that was about to yield for fairness may end out of order.
        assert sorted(self.ended) == sorted(self.expected_ended)

    def teardown(self) -> None:
        self.close()
        umbel.hclose(self.bundle_handle)


TestBundleMachine = BundleMachine.TestCase
TestBundleMachine.settings = settings(max_examples=60, deadline=None)
