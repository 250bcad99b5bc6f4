"""Streams as sockets, for what takes one."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import pytest

import umbel
from tests.mutants import opaque
from tests.support import PATIENCE, Ends, fill, soon
from umbel.bridges import (
    as_socket,
)
from umbel.handle import open_handles
from umbel.testing.transports import transport_at_hand

if TYPE_CHECKING:
    pass
from tests.bridges.recording import MUCH


def test_a_socket_goes_on_where_the_stream_stopped(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"lies unread")
    umbel.bsend(left, b"sent before, ")

    with as_socket(left) as sock:
        assert left not in open_handles
        assert sock.recv(100) == b"lies unread"
        sock.sendall(b"and after")
        assert umbel.brecv(right, 22, soon()) == b"sent before, and after"
        assert sock.gettimeout() is None
        assert sock.getblocking()
    assert umbel.receive(right, 1, soon()) == b""


def test_a_socket_may_outlive_the_loop_that_its_stream_was_used_in(ends: Ends) -> None:
    left, right = ends
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(left, 1, umbel.within(0.001))  # it is watched from now on

    with as_socket(left) as sock:
        umbel.bsend(right, b"x")
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(right, 1, umbel.within(0.001))  # no event of it disturbs
        assert sock.recv(1) == b"x"


def test_a_socket_keeps_the_directions_that_have_ended(ends: Ends) -> None:
    left, right = ends
    umbel.done(left)

    with as_socket(left) as sock:
        assert umbel.receive(right, 1, soon()) == b""
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")
        umbel.bsend(right, b"still open")
        assert sock.recv(100) == b"still open"


def test_multiprocessing_speaks_over_a_socket_of_ours(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = (as_socket(end) for end in ends)
    with Connection(left.detach()) as ours, Connection(right.detach()) as theirs:
        sent = {"numbers": [1, 2, 3], "much": MUCH}
        sending = threads.submit(ours.send, sent)

        assert theirs.recv() == sent
        sending.result()


def test_a_child_process_takes_a_socket_of_ours_as_its_input_and_output() -> None:
    left, right = umbel.ipc_pair()
    code = "import sys; print(sys.stdin.readline().upper(), end='', flush=True)"
    with as_socket(right) as sock:
        command = [sys.executable, "-c", code]
        child = subprocess.Popen(command, stdin=sock.fileno(), stdout=sock.fileno())
    umbel.bsend(left, b"a line\n")

    assert umbel.brecv(left, 7, soon()) == b"A LINE\n"
    assert child.wait(PATIENCE) == 0
    umbel.hclose(left)


def test_what_is_no_idle_stream_with_a_descriptor_becomes_no_socket(
    ends: Ends,
) -> None:
    left, right = ends
    receiving = umbel.go(umbel.receive, left)
    with pytest.raises(umbel.BusyError):
        as_socket(left)
    umbel.hclose(receiving)
    fill(left)
    with pytest.raises(umbel.BrokenStreamError):
        as_socket(left)
    assert left in open_handles
    with transport_at_hand(opaque.transport, "opaque"):
        for end in umbel.pair("opaque"):
            with pytest.raises(umbel.NotSupportedError, match="as_file"):
                as_socket(end)
            umbel.hclose(end)
    umbel.hclose(right)
    with pytest.raises(umbel.BadHandleError):
        as_socket(right)


def test_a_socket_blocks_whatever_the_mode_of_its_stream(
    listener: umbel.ListenerHandle, threads: ThreadPoolExecutor
) -> None:
    left = umbel.connect(listener.address)  # whose descriptor does not block
    right = umbel.accept(listener)

    with as_socket(left) as sock:
        receiving = threads.submit(sock.recv, 1)
        time.sleep(0.01)
        umbel.bsend(right, b"x")
        assert receiving.result(PATIENCE) == b"x"
    umbel.hclose(right)
