"""Channels carry values of one type; `choose` gives what its clauses can."""

from __future__ import annotations

from typing import NamedTuple, assert_type

import umbel
from umbel import ChannelHandle, Recv, Send


class Job(NamedTuple):
    number: int
    name: str


def produce(jobs: ChannelHandle[Job]) -> None:
    jobs.send(Job(1, "first"))
    umbel.chsend(jobs, Job(2, "second"), umbel.within(5))
    jobs.done()


def consume() -> list[Job]:
    ours, theirs = umbel.chmake(Job)
    assert_type(ours, ChannelHandle[Job])
    with ours, theirs, umbel.bundle() as work:
        work.go(produce, theirs)
        assert_type(umbel.chrecv(ours, umbel.within(5)), Job)
        rest: list[Job] = []
        for job in ours:
            assert_type(job, Job)
            rest.append(job)
        umbel.chdone(ours)
    return rest


def answer_one(numbers: ChannelHandle[int], words: ChannelHandle[str]) -> None:
    numbers.send(1)
    words.send("one")


def same_type() -> None:
    ours, theirs = umbel.chmake(int)
    with ours, theirs, umbel.bundle() as work:
        work.go(theirs.send, 5)
        index, value = umbel.choose([Recv(ours), Send(ours, 7)], umbel.within(5))
        assert_type(index, int)
        assert_type(value, int | None)
        assert (index, value) == (0, 5)
        work.go(theirs.receive)
        assert umbel.choose([Send(ours, 7)], umbel.within(5)) == (0, None)


def mixed_types() -> None:
    numbers, numbers_there = umbel.chmake(int)
    words, words_there = umbel.chmake(str)
    with numbers, numbers_there, words, words_there, umbel.bundle() as work:
        work.go(words_there.receive)
        index, value = umbel.choose([Recv(numbers), Send(words, "one")])
        assert_type(value, int | None)
        assert (index, value) == (1, None)


def two_types() -> None:
    numbers, numbers_there = umbel.chmake(int)
    words, words_there = umbel.chmake(str)
    with numbers, numbers_there, words, words_there, umbel.bundle() as work:
        work.go(answer_one, numbers_there, words_there)
        clauses: list[Recv[int] | Recv[str]] = [Recv(numbers), Recv(words)]
        for _ in range(2):
            index, value = umbel.choose(clauses, umbel.within(5))
            assert_type(index, int)
            if isinstance(value, int):
                assert_type(value, int)
            elif isinstance(value, str):
                assert_type(value, str)


def two_sends() -> None:
    words, letters = umbel.chmake(str)
    numbers, digits = umbel.chmake(int)
    with words, letters, numbers, digits, umbel.bundle() as work:
        work.go(letters.receive)
        index, nothing = umbel.choose([Send(words, "x"), Send(numbers, 3)])
        assert (index, nothing) == (0, None)
        work.go(words.send, "y")
        clauses = [Recv(letters), Send(numbers, 3), Send(words, "z")]
        assert umbel.choose(clauses) == (0, "y")


def untyped() -> None:
    ours, theirs = umbel.chmake()
    assert_type(ours, ChannelHandle[object])
    with ours, theirs, umbel.bundle() as work:
        work.go(theirs.send, "anything")
        assert_type(ours.receive(umbel.within(5)), object)


def subclasses() -> None:
    ours, theirs = umbel.chmake(OSError)
    with ours, theirs, umbel.bundle() as work:
        work.go(theirs.send, FileNotFoundError("a subclass may be sent"))
        assert_type(ours.receive(), OSError)


def main() -> None:
    assert consume() == [Job(2, "second")]
    same_type()
    mixed_types()
    two_types()
    two_sends()
    untyped()
    subclasses()


if __name__ == "__main__":
    main()
