"""Streams as files: buffered, text, and what happens when calls are late."""

from __future__ import annotations

import asyncio
import copy
import errno
import io
import pickle
import sys
from contextlib import nullcontext, suppress
from typing import Literal

import pytest

import umbel
from tests.support import PATIENCE, Ends, calls, drain, pattern, soon
from umbel import aio
from umbel.bridges import as_file, files
from umbel.bridges.files import StreamFile
from umbel.handle import open_handles
from umbel.streams.connection import find_connection

#: More than any buffer in between can hold.
MUCH = pattern(6 << 20)


def test_objects_are_pickled_through_a_file(any_ends: Ends) -> None:
    left, right = any_ends
    objects = [{"a": 1}, "text", list(range(1000))]

    def other_side() -> None:
        with as_file(right) as file:
            for _ in objects:
                pickle.dump(pickle.load(file), file)
                file.flush()

    with umbel.go(other_side), as_file(left) as file:
        for thing in objects:
            pickle.dump(thing, file)
            file.flush()
            assert pickle.load(file) == thing


def test_a_file_is_read_by_lines_and_closed_in_good_order(any_ends: Ends) -> None:
    left, right = any_ends

    def other_side() -> None:
        with io.TextIOWrapper(as_file(right, "wb"), encoding="utf-8") as text:
            text.write("eins\nzwei\n")
            text.write("drei: Ω")

    with umbel.go(other_side), as_file(left, "rb") as file:
        assert left not in open_handles
        assert [line.decode() for line in file] == ["eins\n", "zwei\n", "drei: Ω"]


def test_lines_of_text_go_both_ways(ends: Ends) -> None:
    left, right = ends
    where = str(left.address)

    def other_side() -> None:
        with io.TextIOWrapper(as_file(right), line_buffering=True) as text:
            for line in text:
                text.write(line.upper())

    with umbel.go(other_side), io.TextIOWrapper(as_file(left)) as text:
        assert text.name == where
        print("zwölf", file=text, flush=True)
        assert text.readline() == "ZWÖLF\n"


def test_much_goes_through_a_file_both_ways_at_once(any_ends: Ends) -> None:
    left, right = any_ends

    def other_side() -> None:
        while chunk := umbel.receive(right, 1 << 20):
            umbel.bsend(right, chunk)
        umbel.close(right, soon())

    def write() -> None:
        file.write(MUCH)
        file.flush()

    file = as_file(left, "rwb")
    with umbel.go(other_side), umbel.go(write):
        assert file.read(len(MUCH)) == MUCH
        file.close()


def test_a_call_that_is_late_gives_etimedout_and_breaks_a_buffered_file(
    ends: Ends,
) -> None:
    left, right = ends
    file = as_file(left, "rb", seconds=0.01)
    umbel.bsend(right, b"abc")

    with pytest.raises(umbel.DeadlineError):
        file.read(10)
    umbel.bsend(right, b"defghijklm")
    with pytest.raises(umbel.BrokenStreamError):
        file.read(10)  # or three bytes would be missing in the middle

    umbel.hclose(right)
    file.close()


def test_so_does_one_that_is_canceled(ends: Ends) -> None:
    left, right = ends
    file = as_file(left, "rb")

    reading = umbel.go(file.read, 10)
    umbel.bsend(right, b"abc")
    umbel.msleep(umbel.within(0.01))  # it has them, and waits for more
    umbel.hclose(reading)
    umbel.bsend(right, b"defghijklm")
    with pytest.raises(umbel.BrokenStreamError):
        file.read(10)

    umbel.hclose(right)
    file.close()


def test_without_a_buffer_a_late_read_loses_nothing(ends: Ends) -> None:
    left, right = ends
    file = StreamFile(left, 0.01)

    with pytest.raises(umbel.DeadlineError):
        file.read(3)
    umbel.bsend(right, b"abc")

    assert file.read(10) == b"abc"
    umbel.done(right)
    assert file.read(10) == b""
    file.abort()
    assert file.closed
    assert umbel.receive(right, 1, soon()) == b""


@pytest.mark.parametrize("mode", ["rb", "wb", "rwb"])
def test_a_forgotten_file_warns_and_is_closed_hard(ends: Ends, mode: str) -> None:
    left, right = ends
    # The peer stays: an orderly close would wait for it.
    file = as_file(left, mode)  # type: ignore[call-overload]  # each in its turn
    if mode != "rb":
        file.write(b"never flushed")
    began = umbel.now()

    with pytest.warns(ResourceWarning, match="never closed"):
        del file

    assert umbel.now() - began < 5000
    assert len(open_handles) == 1
    assert umbel.receive(right, 1, soon()) == b""


@pytest.mark.parametrize("mode", ["rb", "wb", "rwb"])
def test_so_is_one_where_warnings_are_errors(
    ends: Ends, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    told: list[str] = []
    hook = "unraisablehook"
    monkeypatch.setattr(sys, hook, lambda found: told.append(str(found.exc_value)))
    file = as_file(left, mode)  # type: ignore[call-overload]  # each in its turn
    if mode != "rb":
        file.write(b"never flushed")
    began = umbel.now()

    del file

    assert umbel.now() - began < 5000
    assert len(open_handles) == 1
    assert umbel.receive(right, 1, soon()) == b""
    (message,) = told
    assert "a stream's file was never closed" in message


@pytest.mark.parametrize("mode", ["rb", "wb", "rwb"])
def test_a_file_gives_the_descriptor_as_one_of_a_socket_does(
    ends: Ends, mode: Literal["rb", "wb", "rwb"]
) -> None:
    left, _ = ends
    fd = left.fileno()
    with as_file(left, mode) as file:
        assert file.fileno() == fd
        umbel.hclose(ends[1])
    with pytest.raises(ValueError, match="closed"):
        file.fileno()


def test_a_file_tells_what_it_can_and_what_is_wrong(ends: Ends) -> None:
    left, right = ends
    with pytest.raises(ValueError, match="mode is 'r'"):
        as_file(left, "r")  # type: ignore[call-overload]  # what it is about
    with pytest.raises(ValueError, match="seconds is -1"):
        as_file(left, seconds=-1)
    assert left in open_handles
    file = as_file(left, "rb")
    assert file.readable()
    fd = file.fileno()
    assert fd >= 0
    assert not file.seekable()
    umbel.hclose(right)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()


@pytest.mark.parametrize("mode", ["wb", "rwb"])
def test_so_is_one_that_text_is_put_around(ends: Ends, mode: str) -> None:
    left, right = ends
    text = io.TextIOWrapper(as_file(left, mode))  # type: ignore[call-overload]  # each in its turn
    text.write("half a line")

    with pytest.warns(ResourceWarning, match="TextIOWrapper"):
        del text

    assert len(open_handles) == 1
    assert umbel.receive(right, 1, soon()) == b""


@pytest.mark.parametrize("size", [0, -1, 1 << 70, 4096.0])
def test_a_buffer_of_no_size_is_refused_and_takes_nothing_over(
    ends: Ends, size: int
) -> None:
    left, right = ends

    with pytest.raises((ValueError, TypeError), match=r"buffer_size is|'float'"):
        as_file(left, buffer_size=size)

    umbel.bsend(left, b"as it was")
    assert umbel.receive(right, 100, soon()) == b"as it was"


def test_what_can_not_be_written_to_is_refused_before_anything_is_received(
    ends: Ends,
) -> None:
    left, right = ends
    umbel.bsend(right, b"data")

    file = StreamFile(left)
    with pytest.raises(TypeError, match="writable"):
        file.readinto(b"1234")

    assert file.read(4) == b"data"
    file.abort()


def test_a_file_can_be_neither_copied_nor_pickled(ends: Ends) -> None:
    left, right = ends
    file = StreamFile(left)

    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="owns the stream"):
            act(file)

    file.write(b"ours still")
    assert umbel.receive(right, 100, soon()) == b"ours still"
    file.abort()


@pytest.mark.parametrize("mode", ["rb", "wb", "rwb"])
def test_closing_a_file_ends_the_call_of_another_coroutine(
    ends: Ends, mode: str
) -> None:
    left, right = ends
    file = as_file(left, mode)  # type: ignore[call-overload]  # each in its turn
    told: list[int | None] = []

    def work() -> None:
        try:
            file.read(1) if mode == "rb" else file.write(MUCH)
        except umbel.BadHandleError as error:
            told.append(error.errno)

    def close_too() -> None:
        with suppress(ConnectionResetError):  # a write that is cut short is no good end
            drain(right)
            umbel.close(right, soon())

    with umbel.bundle() as peers:
        peers.go(work)  # it waits, and the buffer is locked
        peers.go(close_too)
        with nullcontext() if mode == "rb" else pytest.raises(ConnectionResetError):
            file.close()

    assert file.closed
    assert told == [errno.EBADF]


def test_a_call_that_never_began_breaks_no_file(ends: Ends) -> None:
    left, right = ends
    file = as_file(left, "rb", seconds=20)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="aio"):
            file.read(4)  # it would stop the loop
        umbel.bsend(right, b"data")
        assert await aio.run_blocking(file.read, 4) == b"data"
        umbel.hclose(right)
        await aio.run_blocking(file.close)

    asyncio.run(main())


def test_what_was_written_is_sent_though_another_coroutine_reads(ends: Ends) -> None:
    left, right = ends
    file = as_file(left, "rwb")

    def read() -> None:
        with pytest.raises(umbel.BadHandleError):
            file.read(5)

    def close_too(sent: list[bytes]) -> None:
        sent.append(drain(right))
        umbel.close(right, soon())

    sent: list[bytes] = []
    with umbel.go(read), umbel.go(close_too, sent):
        file.write(b"not flushed yet")
        file.close()

    assert sent == [b"not flushed yet"]


@pytest.mark.parametrize("mode", ["rb", "wb"])
def test_a_file_whose_stream_was_aborted_is_closed_without_an_error(
    ends: Ends, mode: str
) -> None:
    file = as_file(ends[0], mode)  # type: ignore[call-overload]  # each in its turn
    raw = file.raw
    raw.abort()

    file.close()

    for call in calls(raw.readable, raw.writable, raw.fileno, raw.readall):
        with pytest.raises(ValueError, match="closed file"):
            call()


@pytest.mark.parametrize("mode", ["rb", "wb"])
def test_a_file_that_was_detached_is_closed_as_python_has_it(
    ends: Ends, mode: str
) -> None:
    left, right = ends
    file = as_file(left, mode)  # type: ignore[call-overload]  # each in its turn
    raw = file.detach()

    with pytest.raises(ValueError, match="detached"):
        file.close()

    umbel.hclose(right)
    raw.close()


@pytest.mark.parametrize("mode", ["wb", "rwb"])
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_second_writer_is_refused_and_tears_nothing(
    mode: Literal["wb", "rwb"], in_thread: bool, ends: Ends
) -> None:
    left, right = ends
    stream = find_connection(left)
    file = as_file(left, mode, seconds=PATIENCE)

    def write() -> None:
        file.write(MUCH)
        file.flush()

    with umbel.bundle() as work:
        if in_thread:
            work.go(umbel.to_thread, write)
        else:
            work.go(write)
        while stream.sender is None:
            umbel.msleep(umbel.within(0.001))
        for call in calls(lambda: file.write(b"x"), file.flush):
            with pytest.raises(umbel.BusyError, match="let one write for all"):
                call()
        assert umbel.brecv(right, len(MUCH), soon()) == MUCH
        work.wait(soon())
    ending = umbel.go(umbel.close, right, soon())
    file.close()
    umbel.close(ending)


def test_a_file_that_may_take_for_ever_closes_within_the_grace_all_the_same(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CLOSE_GRACE", 0.01)
    file = as_file(ends[0])

    with umbel.go(file.close) as closing, pytest.raises(ExceptionGroup) as failed:
        closing.wait(soon())

    assert isinstance(failed.value.exceptions[0], umbel.DeadlineError)
