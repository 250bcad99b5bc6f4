"""The mem transport: named connections within a process, with no file anywhere."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import umbel
from tests.support import calls, drain, run_python, soon, wait_until_blocked
from umbel.handle import lookup
from umbel.streams.listener import Listening
from umbel_transports.mem import MemListener


def test_every_mem_call_does_what_its_ipc_twin_does() -> None:
    memory = umbel.Memory()

    with umbel.ipc_listen_mem("name", 5, memory) as listener:
        client = umbel.ipc_connect_mem("name", memory)
        server = umbel.ipc_accept_mem(listener, memory, umbel.within(5))
        umbel.bsend(client, b"ABC")
        umbel.ipc_done(client)
        assert drain(server) == b"ABC"
        with umbel.go(umbel.ipc_close, client):
            umbel.ipc_close(server)


def test_pair_mem_gives_two_peers_with_descriptors() -> None:
    left, right = umbel.ipc_pair_mem(umbel.Memory())

    umbel.bsend(left, b"x")

    assert umbel.brecv(right, 1) == b"x"
    assert os.fstat(left.fileno()).st_ino != os.fstat(right.fileno()).st_ino
    umbel.hclose(left)
    umbel.hclose(right)


def test_descriptors_can_be_adopted_into_mem() -> None:
    a, b = socket.socketpair()
    with a, umbel.ipc_fromfd_mem(b.detach()) as stream:
        a.sendall(b"x")
        assert umbel.brecv(stream, 1) == b"x"
        a.shutdown(socket.SHUT_WR)


def test_a_listening_socket_can_be_adopted_into_mem() -> None:
    name = f"\0umbel-test-mem-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        sock.listen()
        listener = umbel.ipc_listener_fromfd_mem(sock.detach())

    with listener:
        client = umbel.ipc_connect("@" + name[1:])
        umbel.hclose(umbel.ipc_accept(listener))
        umbel.hclose(client)


def test_what_is_no_memory_is_refused_such_as_a_deadline_in_its_place() -> None:
    deadline = soon()
    with umbel.ipc_listen_mem("name") as listener:
        calls: list[Callable[[], object]] = [
            lambda: umbel.ipc_listen_mem("other", 5, deadline),  # type: ignore[arg-type]
            lambda: umbel.ipc_accept_mem(listener, deadline),  # type: ignore[arg-type]
            lambda: umbel.ipc_connect_mem("name", deadline),  # type: ignore[arg-type]
            lambda: umbel.ipc_pair_mem(deadline),  # type: ignore[arg-type]
            lambda: umbel.ipc_fromfd_mem(0, deadline),  # type: ignore[arg-type]
            lambda: umbel.ipc_listener_fromfd_mem(0, deadline),  # type: ignore[arg-type]
        ]
        for call in calls:
            with pytest.raises(TypeError, match="no Memory"):
                call()


def test_a_name_means_nothing_in_another_memory() -> None:
    with umbel.ipc_listen_mem("name", mem=umbel.Memory()):
        for mem in (None, umbel.Memory()):
            with pytest.raises(ConnectionRefusedError, match="nobody listens"):
                umbel.ipc_connect_mem("name", mem)


def test_the_shared_memory_is_that_of_addresses() -> None:
    with umbel.ipc_listen_mem("name") as listener:
        assert str(listener.address) == "mem://name"
        client = umbel.connect("mem://name")
        umbel.hclose(umbel.accept(listener))
        umbel.hclose(client)


def test_a_name_that_is_taken_is_eaddrinuse_until_it_is_closed() -> None:
    first = umbel.listen("mem://name")

    with pytest.raises(OSError, match="close it first") as caught:
        umbel.listen("mem://name")
    umbel.hclose(first)

    assert caught.value.errno == errno.EADDRINUSE
    umbel.hclose(umbel.listen("mem://name"))


def test_an_empty_name_is_einval() -> None:
    with pytest.raises(OSError, match="name") as caught:
        umbel.listen("mem:")

    assert caught.value.errno == errno.EINVAL


def test_a_memory_of_another_kind_is_a_type_error() -> None:
    for call in calls(
        lambda: umbel.listen("mem://x", memory={}),
        lambda: umbel.connect("mem://x", memory=5),
        lambda: umbel.pair("mem", memory="shared"),
        lambda: umbel.pair("mem", size=5),
    ):
        with pytest.raises(TypeError):
            call()


def test_connecting_and_accepting_work_across_threads(
    threads: ThreadPoolExecutor,
) -> None:
    memory = umbel.Memory()
    with umbel.ipc_listen_mem("x", 1, memory) as listener:
        accepting = threads.submit(umbel.accept, listener)
        wait_until_blocked(listener)

        clients = [threads.submit(umbel.ipc_connect_mem, "x", memory) for _ in range(5)]
        servers = [accepting.result(20), *(umbel.accept(listener) for _ in range(4))]

        for handle in (*servers, *(client.result(20) for client in clients)):
            umbel.hclose(handle)


def test_who_waits_for_a_full_backlog_is_refused_when_the_listener_closes(
    threads: ThreadPoolExecutor,
) -> None:
    listener = umbel.listen("mem://full", backlog=1)
    first = umbel.connect("mem://full")
    waiting = threads.submit(umbel.connect, "mem://full")
    with pytest.raises(umbel.DeadlineError):
        umbel.connect("mem://full", umbel.within(0.02))

    umbel.hclose(listener)

    with pytest.raises(ConnectionRefusedError):
        waiting.result(20)
    umbel.hclose(first)


def test_a_canceled_connect_leaves_its_place_to_others() -> None:
    with umbel.listen("mem://full", backlog=1) as listener:
        first = umbel.connect("mem://full")
        umbel.hclose(umbel.go(umbel.connect, "mem://full"))

        umbel.hclose(umbel.accept(listener))
        second = umbel.connect("mem://full", 0)
        umbel.hclose(umbel.accept(listener, 0))
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, 0)
        umbel.hclose(first)
        umbel.hclose(second)


def test_each_accept_lets_only_one_of_those_that_wait_look_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    look = MemListener._enqueue

    def count(listener: MemListener) -> socket.SocketType | None:
        nonlocal looks
        looks += 1
        return look(listener)

    monkeypatch.setattr(MemListener, "_enqueue", count)
    streams: list[umbel.StreamHandle] = []
    with umbel.listen("mem://full", 1) as listener, umbel.bundle() as clients:
        for _ in range(100):
            clients.go(lambda: streams.append(umbel.connect("mem://full", soon())))

        for _ in range(100):
            streams.append(umbel.accept(listener, soon()))
            umbel.yield_()

    assert looks <= 2 * 100
    for stream in streams:
        umbel.hclose(stream)


def test_room_that_one_cannot_use_is_for_the_next_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = [OSError(errno.EMFILE, "no descriptor is left")]
    make_pair = socket.socketpair

    def fail_once() -> tuple[socket.socket, socket.socket]:
        if failing:
            raise failing.pop()
        return make_pair()

    with umbel.listen("mem://full", 1) as listener:
        first = umbel.connect("mem://full")
        unlucky = umbel.go(umbel.connect, "mem://full", soon())
        next_one = umbel.go(lambda: umbel.hclose(umbel.connect("mem://full", soon())))
        monkeypatch.setattr("umbel_transports.mem.socketpair", fail_once)

        umbel.hclose(umbel.accept(listener))
        next_one.wait(soon())

        with pytest.raises(ExceptionGroup):
            umbel.hclose(unlucky)
        umbel.hclose(umbel.accept(listener, soon()))
        umbel.hclose(next_one)
    umbel.hclose(first)


def test_a_backlog_of_0_has_room_for_one() -> None:
    with umbel.listen("mem://x", 0) as listener:
        client = umbel.connect("mem://x", soon())
        server = umbel.accept(listener, soon())

        umbel.hclose(client)
        umbel.hclose(server)


def test_a_backlog_that_stays_full_is_etimedout_and_says_what_to_do() -> None:
    with umbel.listen("mem://x", 1), umbel.connect("mem://x", soon()) as client:
        with pytest.raises(umbel.DeadlineError, match="accept faster"):
            umbel.connect("mem://x", umbel.within(0.01))
        client.abort()


def test_a_second_abort_leaves_the_name_to_who_has_it_now() -> None:
    first = umbel.listen("mem://x")
    endpoint = lookup(first, Listening).listener
    umbel.hclose(first)

    with umbel.listen("mem://x"):
        endpoint.abort()

        umbel.hclose(umbel.connect("mem://x", soon()))


def test_a_listener_can_be_closed_amid_a_look_up_of_its_own_thread() -> None:
    memory = umbel.Memory()
    listener = umbel.ipc_listen_mem("name", mem=memory)

    with memory.lock:  # as by a signal's handler, or as garbage is collected
        umbel.hclose(listener)

    umbel.hclose(umbel.ipc_listen_mem("name", mem=memory))


def test_a_child_can_listen_though_it_was_forked_amid_a_look_up() -> None:
    code = """
import os, signal, threading, time
import umbel
memory = umbel.Memory()
holds = threading.Event()
def look_up():
    with memory.lock:
        holds.set()
        time.sleep(0.2)
thread = threading.Thread(target=look_up)
thread.start()
holds.wait()
child = os.fork()
if not child:
    signal.alarm(5)
    umbel.hclose(umbel.ipc_listen_mem("name", mem=memory))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()
"""
    run_python(f"import warnings; warnings.simplefilter('ignore')\n{code}")


def test_who_connects_as_the_listener_is_closed_is_not_left_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = umbel.listen("mem://name")
    make_pair = socket.socketpair

    def close_meanwhile() -> tuple[socket.socket, socket.socket]:
        umbel.hclose(listener)
        return make_pair()

    monkeypatch.setattr("umbel_transports.mem.socketpair", close_meanwhile)
    stream = umbel.connect("mem://name")

    assert umbel.receive(stream, deadline=soon()) == b""
    umbel.hclose(stream)
