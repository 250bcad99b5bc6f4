"""Names and files of the ipc transport, and connecting to them."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import umbel
from tests.support import (
    drain,
    lateness,
    python,
    run_python,
    wait_until,
    wait_until_blocked,
)
from umbel_transports import ipc
from umbel_transports._local_sockets import SO_PASSRIGHTS


def exchange(listener: umbel.ListenerHandle, path: object) -> None:
    """Connect, and see that bytes go both ways."""
    client = umbel.ipc_connect(path)  # type: ignore[arg-type]
    server = umbel.ipc_accept(listener)
    umbel.bsend(client, b"there")
    assert umbel.brecv(server, 5) == b"there"
    umbel.bsend(server, b"back")
    assert umbel.brecv(client, 4) == b"back"
    umbel.hclose(client)
    umbel.hclose(server)


def fill_backlog(address: str) -> list[umbel.StreamHandle]:
    """Connect until there is no more room."""
    waiting = []
    while True:
        try:
            waiting.append(umbel.connect(address, 0))
        except umbel.DeadlineError as error:
            assert "backlog" in str(error)
            return waiting


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "Path"])
def test_any_kind_of_path_works(tmp_path: Path, kind: object) -> None:
    path = kind(str(tmp_path / "x.sock"))  # type: ignore[operator]

    with umbel.ipc_listen(path) as listener:
        exchange(listener, path)


def test_the_file_is_there_while_listening_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path):
        assert stat.S_ISSOCK(path.stat().st_mode)

    assert not path.exists()


def test_hclose_removes_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    umbel.hclose(umbel.ipc_listen(path))

    assert not path.exists()


def test_a_relative_path_is_found_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)

    with umbel.ipc_listen("x.sock") as listener:
        monkeypatch.chdir(tmp_path / "other")
        with pytest.raises(FileNotFoundError):
            umbel.ipc_connect("x.sock")
        client = umbel.connect(listener.address)
        umbel.hclose(client)

    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.parametrize(
    "name", ["with space", "ümlaut", "per%cent", "colon:name", b"\xff\xfe"], ids=repr
)
def test_odd_names_work_and_survive_their_address(
    tmp_path: Path, name: str | bytes
) -> None:
    path = os.fsencode(tmp_path) + b"/" + os.fsencode(name)

    with umbel.ipc_listen(path) as listener:
        exchange(listener, path)
        umbel.hclose(umbel.connect(str(listener.address)))

    assert os.listdir(tmp_path) == []


def test_a_path_of_300_bytes_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)

    with umbel.ipc_listen(folder / "x.sock") as listener:
        exchange(listener, folder / "x.sock")

    assert os.listdir(folder) == []


@pytest.mark.parametrize("size", [107, 108, 109])
def test_paths_round_the_limit_work(tmp_path: Path, size: int) -> None:
    path = str(tmp_path / "x")
    path += "y" * (size - len(path))

    with umbel.ipc_listen(path) as listener:
        exchange(listener, path)


def test_a_name_longer_than_a_socket_can_have_is_enametoolong(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 108), "@" + "x" * 108):
        for call in (umbel.ipc_listen, umbel.ipc_connect):
            with pytest.raises(OSError, match="can have") as caught:
                call(path)
            assert caught.value.errno == errno.ENAMETOOLONG


def test_an_abstract_name_may_have_107_bytes() -> None:
    name = f"@umbel-test-{os.getpid()}-".ljust(108, "x")

    with umbel.ipc_listen(name) as listener:
        exchange(listener, name)


def test_how_long_a_name_may_be_in_a_long_folder_is_told(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100)
    folder.mkdir()

    with pytest.raises(OSError, match="at most") as caught:
        umbel.ipc_listen(folder / ("x" * 107))
    most = int(re.findall(r"(\d+) bytes at most", str(caught.value))[0])
    with umbel.ipc_listen(folder / ("x" * most)) as listener:
        exchange(listener, folder / ("x" * most))
    for call in (umbel.ipc_listen, umbel.ipc_connect):
        with pytest.raises(OSError, match=f"not {most + 1}") as caught:
            call(folder / ("x" * (most + 1)))
        assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    ("kind", "make"), [("folder", Path.mkdir), ("fifo", os.mkfifo)]
)
def test_connecting_to_what_is_no_socket_says_what_it_is(
    tmp_path: Path, kind: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "x")

    with pytest.raises(ConnectionRefusedError, match=f"is a {kind}, and no socket"):
        umbel.ipc_connect(tmp_path / "x")


def test_a_folder_that_is_a_link_to_nowhere_need_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to(tmp_path / "nowhere")

    for call in (umbel.ipc_listen, umbel.ipc_connect):
        with pytest.raises(FileNotFoundError, match="mend the path"):
            call(tmp_path / "folder" / "x.sock")


def test_a_long_path_without_its_folder_says_so(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "x.sock"

    for call in (umbel.ipc_listen, umbel.ipc_connect):
        with pytest.raises(FileNotFoundError, match="its folder does not exist: make"):
            call(path)


@pytest.mark.parametrize("takeover", [False, True])
def test_listening_at_a_link_says_that_it_is_one(
    tmp_path: Path, takeover: bool
) -> None:
    link = tmp_path / "link"
    with umbel.ipc_listen(tmp_path / "x.sock"):
        link.symlink_to(tmp_path / "x.sock")

        with pytest.raises(OSError, match=r"is a symbolic link to .*x\.sock") as caught:
            umbel.listen(f"ipc:{link}", takeover=takeover)

        umbel.hclose(umbel.ipc_connect(link))
    assert caught.value.errno == errno.EADDRINUSE
    assert link.is_symlink()


def test_a_relative_path_in_a_folder_that_was_deleted_is_named(tmp_path: Path) -> None:
    code = """
import os, sys, umbel
for stream in umbel.ipc_pair():  # the transport is imported while it can be
    umbel.hclose(stream)
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
for call in umbel.ipc_listen, umbel.ipc_connect:
    try:
        call("x.sock")
    except FileNotFoundError as error:
        print(error)
"""
    (tmp_path / "gone").mkdir()

    listening, connecting = run_python(code, str(tmp_path / "gone")).splitlines()

    assert "ipc:x.sock: the current folder was deleted" in listening
    assert "ipc:x.sock: " in connecting


def test_an_abstract_name_needs_no_file() -> None:
    name = f"@umbel-test-{os.getpid()}"

    with umbel.ipc_listen(name) as listener:
        assert str(listener.address) == f"ipc:{name}"
        exchange(listener, name)

    with pytest.raises(ConnectionRefusedError):
        umbel.ipc_connect(name)


@pytest.mark.parametrize("path", ["", "@", "a\0b", b"\0abstract"], ids=repr)
def test_empty_names_and_nul_are_einval(path: str | bytes) -> None:
    for call in (umbel.ipc_listen, umbel.ipc_connect):
        with pytest.raises(OSError, match=r"empty|NUL") as caught:
            call(path)
        assert caught.value.errno == errno.EINVAL


def test_a_live_listener_is_never_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path, backlog=1) as listener:
        for _ in range(3):
            with pytest.raises(OSError, match="live process") as caught:
                umbel.ipc_listen(path)
            assert caught.value.errno == errno.EADDRINUSE
        exchange(listener, path)  # and none of the tries sits in its backlog


def test_a_backlog_may_be_larger_than_the_kernel_takes(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path, backlog=1 << 40) as listener:
        exchange(listener, path)

    assert not path.exists()


def test_a_listen_that_fails_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(socket.socket):
        def listen(self, *_: object) -> None:
            raise MemoryError

    path = tmp_path / "x.sock"
    sock = Faulty(socket.AF_UNIX)
    monkeypatch.setattr("umbel_transports.ipc.open_socket", lambda _: sock)
    with pytest.raises(MemoryError):
        umbel.ipc_listen(path)

    assert not path.exists()
    assert sock.fileno() == -1


def test_a_listener_with_a_full_backlog_is_live(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path, backlog=0):
        waiting = umbel.ipc_connect(path)
        with pytest.raises(umbel.DeadlineError):
            umbel.ipc_connect(path, 0)
        with pytest.raises(OSError, match="live process"):
            umbel.ipc_listen(path)
        umbel.hclose(waiting)


def test_a_socket_that_is_bound_but_does_not_listen_yet_is_live(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        with pytest.raises(OSError, match="live process"):
            umbel.ipc_listen(path)

    assert path.exists()


def test_a_stale_file_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

    with umbel.ipc_listen(path) as listener:
        exchange(listener, path)


def test_of_many_starters_on_a_stale_file_one_wins(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))

    starting = [threads.submit(umbel.ipc_listen, path) for _ in range(8)]
    outcomes = [future.exception(20) for future in starting]
    winner = next(f.result() for f in starting if f.exception() is None)

    assert sum(outcome is None for outcome in outcomes) == 1
    assert {getattr(o, "errno", None) for o in outcomes} == {None, errno.EADDRINUSE}
    exchange(winner, path)
    umbel.hclose(winner)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, what: str) -> None:
    path = tmp_path / "precious"
    if what == "file":
        path.write_text("data")
    else:
        path.mkdir()

    with pytest.raises(OSError, match="no socket") as caught:
        umbel.ipc_listen(path)

    assert caught.value.errno == errno.EADDRINUSE
    assert path.exists()


def test_a_file_that_is_no_longer_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    first = umbel.ipc_listen(path)
    path.unlink()
    second = umbel.ipc_listen(path)

    umbel.hclose(first)

    exchange(second, path)
    umbel.hclose(second)
    assert not path.exists()


def test_unlink_false_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    umbel.hclose(umbel.listen(f"ipc:{path}", unlink=False))

    assert path.exists()
    umbel.hclose(umbel.ipc_listen(path))  # it is stale, and can be replaced


def test_the_mode_is_that_which_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.listen(f"ipc:{path}", mode=0o600):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_unknown_option_is_a_type_error_that_names_a_near_one(
    tmp_path: Path,
) -> None:
    with pytest.raises(TypeError, match="unlink"):
        umbel.listen(f"ipc:{tmp_path}/x.sock", unlnik=True)
    with pytest.raises(TypeError, match="give a value of int"):
        umbel.listen(f"ipc:{tmp_path}/x.sock", mode="600")
    with pytest.raises(OSError, match=r"mode=600: .* such as mode=0o600") as caught:
        umbel.listen(f"ipc:{tmp_path}/x.sock", mode=600)

    assert caught.value.errno == errno.EINVAL
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "number", "advice"),
    [
        ("nothing", errno.ENOENT, "no such file"),
        ("no/folder", errno.ENOENT, "folder does not exist: make it"),
        ("~/x", errno.ENOENT, "use os.path.expanduser"),
        ("file", errno.ECONNREFUSED, "is a file, and no socket"),
        ("file/under", errno.ENOTDIR, "not a folder"),
        ("stale", errno.ECONNREFUSED, "nobody listens"),
        ("datagram", errno.EPROTOTYPE, "not a stream socket"),
    ],
)
def test_connecting_to_what_does_not_listen_says_so(
    tmp_path: Path, name: str, number: int, advice: str
) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        datagram.bind(str(tmp_path / "datagram"))
        with pytest.raises(OSError, match=advice) as caught:
            umbel.ipc_connect(tmp_path / name)

    assert caught.value.errno == number
    assert name in str(caught.value)


def test_listening_in_a_folder_that_is_missing_is_enoent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make it"):
        umbel.ipc_listen(tmp_path / "no" / "x.sock")


def test_streams_are_accepted_in_the_order_of_connecting(
    listener: umbel.ListenerHandle,
) -> None:
    clients = [umbel.connect(listener.address) for _ in range(10)]
    for i, client in enumerate(clients):
        umbel.bsend(client, bytes([i]))

    servers = [umbel.accept(listener) for _ in clients]

    assert [umbel.brecv(server, 1)[0] for server in servers] == list(range(10))
    for end in (*clients, *servers):
        umbel.hclose(end)


def test_accept_ends_at_its_deadline(listener: umbel.ListenerHandle) -> None:
    assert lateness(lambda until: umbel.accept(listener, until)) <= 20


def test_accept_with_deadline_0_takes_who_is_there(
    listener: umbel.ListenerHandle,
) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.accept(listener, 0)
    client = umbel.connect(listener.address, 0)

    umbel.hclose(umbel.accept(listener, 0))
    umbel.hclose(client)


def test_a_second_accept_is_ebusy(
    listener: umbel.ListenerHandle, threads: ThreadPoolExecutor
) -> None:
    first = threads.submit(umbel.accept, listener)
    wait_until_blocked(listener)

    with pytest.raises(umbel.BusyError):
        umbel.accept(listener, 0)
    client = umbel.connect(listener.address)

    umbel.hclose(first.result(20))
    umbel.hclose(client)


def test_a_full_backlog_is_waited_for_until_the_deadline(
    tmp_path: Path, scheme: str
) -> None:
    address = f"ipc:{tmp_path}/x.sock" if scheme == "ipc" else "mem://full"
    with umbel.listen(address, backlog=1) as listener:
        waiting = fill_backlog(address)

        assert lateness(lambda until: umbel.connect(address, until)) <= 40
        with umbel.bundle() as connecting:
            connecting.go(lambda: waiting.append(umbel.connect(address)))
            umbel.hclose(umbel.accept(listener))

        for client in waiting:
            umbel.hclose(client)


def test_who_waits_for_a_full_backlog_waits_there_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with (
        umbel.ipc_listen("x.sock", 1) as listener,
        umbel.ipc_listen("other/x.sock") as other,
    ):
        waiting = fill_backlog("ipc:x.sock")
        with umbel.bundle() as connecting:
            connecting.go(lambda: waiting.append(umbel.ipc_connect("x.sock")))
            monkeypatch.chdir(tmp_path / "other")
            for _ in tuple(waiting):
                umbel.hclose(umbel.accept(listener))

        with pytest.raises(umbel.DeadlineError):
            umbel.accept(other, 0)
        for client in waiting:
            umbel.hclose(client)


def test_waiting_for_a_full_backlog_costs_next_to_nothing(
    tmp_path: Path, scheme: str
) -> None:
    address = f"ipc:{tmp_path}/x.sock" if scheme == "ipc" else "mem://full"
    with umbel.listen(address, backlog=1):
        waiting = fill_backlog(address)

        before = time.thread_time()
        with pytest.raises(umbel.DeadlineError):
            umbel.connect(address, umbel.within(0.3))
        assert time.thread_time() - before < 0.1

        for client in waiting:
            umbel.hclose(client)


def test_a_listener_that_closes_refuses_who_waits_in_its_backlog(
    listener: umbel.ListenerHandle,
) -> None:
    address = listener.address
    client = umbel.connect(address)
    umbel.bsend(client, b"into the void")

    umbel.hclose(listener)

    try:
        assert umbel.receive(client, 10, umbel.within(5)) == b""
    except umbel.BrokenStreamError:
        pass
    umbel.hclose(client)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        umbel.connect(address)


@pytest.mark.skipif(
    not os.path.exists("/proc/self/fd"), reason="needs rlimits of Linux"
)
def test_emfile_in_accept_is_raised_and_the_listener_lives_on(tmp_path: Path) -> None:
    code = """
import errno, os, resource, sys
import umbel
with umbel.ipc_listen(sys.argv[1]) as listener:
    client = umbel.ipc_connect(sys.argv[1])
    used = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, 4096))
    try:
        umbel.ipc_accept(listener, umbel.within(5))
    except OSError as error:
        assert error.errno == errno.EMFILE, error
    else:
        raise SystemExit("EMFILE was swallowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    server = umbel.ipc_accept(listener, umbel.within(5))
    umbel.bsend(client, b"alive")
    assert umbel.brecv(server, 5) == b"alive"
    umbel.hclose(server)
    umbel.hclose(client)
"""
    run_python(code, str(tmp_path / "x.sock"))


def test_a_forked_child_that_exits_disturbs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    code = """
import os, sys
import umbel
path = sys.argv[1]
listener = umbel.ipc_listen(path)
client = umbel.ipc_connect(path)
server = umbel.ipc_accept(listener)
child = os.fork()
if not child:
    sys.exit(0)            # through atexit and all finalizers
assert os.waitpid(child, 0)[1] == 0
assert os.path.exists(path)
umbel.bsend(client, b"alive")
assert umbel.brecv(server, 5, umbel.within(5)) == b"alive"
other = umbel.ipc_connect(path)
umbel.hclose(umbel.ipc_accept(listener))
for handle in (other, client, server, listener):
    umbel.hclose(handle)
"""
    run_python(code, str(path))

    assert not path.exists()


def test_a_forked_child_can_use_what_it_inherited(tmp_path: Path) -> None:
    code = """
import os, sys
import umbel
def wait():
    try:
        umbel.receive(server)
    except umbel.Canceled:
        raise
with umbel.ipc_listen(sys.argv[1]) as listener:
    client = umbel.ipc_connect(sys.argv[1])
    server = umbel.ipc_accept(listener)
    waiting = umbel.go(wait)       # in use in the parent, not in the child
    child = os.fork()
    if not child:
        umbel.bsend(client, b"from the child")
        assert umbel.receive(server, 100, umbel.within(5)) == b"from the child"
        with umbel.bundle() as b:
            b.go(umbel.msleep, umbel.within(0.001))
        other = umbel.ipc_connect(sys.argv[1])
        umbel.hclose(umbel.ipc_accept(listener))
        umbel.hclose(other)
        umbel.hclose(server)
        umbel.hclose(client)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    umbel.hclose(waiting)
    umbel.bsend(client, b"parent")
    assert umbel.brecv(server, 6) == b"parent"
    umbel.hclose(server)
    umbel.hclose(client)
"""
    run_python(code, str(tmp_path / "x.sock"))


def test_a_process_that_forgets_its_listener_warns_and_leaves_no_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"
    code = "import sys, umbel; kept = umbel.ipc_listen(sys.argv[1])"

    with python(code, str(path), PYTHONWARNINGS="always") as process:
        _, err = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "ResourceWarning" in err
    assert "never closed" in err
    assert not path.exists()


def test_a_client_survives_the_death_of_its_server(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    code = """
import sys, umbel
listener = umbel.ipc_listen(sys.argv[1])
print("listening", flush=True)
s = umbel.ipc_accept(listener)
umbel.bsend(s, b"last words")
umbel.msleep(-1)
"""
    with python(code, str(path)) as server:
        assert server.stdout is not None
        server.stdout.readline()
        client = umbel.ipc_connect(path)
        assert umbel.brecv(client, 10) == b"last words"
        server.send_signal(signal.SIGKILL)
        assert umbel.receive(client, 10, umbel.within(20)) == b""
        with pytest.raises(umbel.BrokenStreamError):
            umbel.bsend(client, b"x")
        umbel.hclose(client)


def test_peers_without_umbel_understand_us(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    def plain() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"plain")
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()

    with umbel.ipc_listen(path) as listener, ThreadPoolExecutor(1) as pool:
        talking = pool.submit(plain)
        with umbel.ipc_accept(listener) as server:
            assert drain(server) == b"plain"
            umbel.bsend(server, b"umbel")

        assert talking.result(20) == b"umbel"


def test_socket_timeouts_of_the_program_change_nothing(tmp_path: Path) -> None:
    code = """
import socket, sys
import umbel
socket.setdefaulttimeout(0.01)
with umbel.ipc_listen(sys.argv[1]) as listener:
    client = umbel.ipc_connect(sys.argv[1])
    server = umbel.ipc_accept(listener)
    with umbel.bundle() as b:
        b.go(lambda: umbel.bsend(client, umbel.brecv(client, 1)))
        umbel.msleep(umbel.within(0.05))
        umbel.bsend(server, b"x")
        assert umbel.brecv(server, 1) == b"x"
    umbel.hclose(client); umbel.hclose(server)
"""
    run_python(code, str(tmp_path / "x.sock"))


def test_peer_identity_is_that_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path) as listener:
        client = umbel.ipc_connect(path)
        server = umbel.ipc_accept(listener)
        for end in (client, server):
            found = umbel.query(end, umbel.PeerIdentity)
            assert found[:3] == (os.getpid(), os.getuid(), os.getgid())
            umbel.hclose(end)


def test_open_and_close_in_one_thread_never_reach_anothers_stream() -> None:
    # Descriptor numbers come back at once: no event may reach their next user.
    stop = threading.Event()
    failures = []
    others = threading.active_count()

    def churn() -> None:
        while not stop.is_set():
            left, right = umbel.ipc_pair()
            umbel.bsend(left, b"churn")
            if umbel.receive(right, 10, umbel.within(20)) != b"churn":
                failures.append("churn")
            umbel.hclose(left)
            umbel.hclose(right)

    workers = [threading.Thread(target=churn) for _ in range(2)]
    for worker in workers:
        worker.start()
    left, right = umbel.ipc_pair()
    with umbel.bundle() as waiting:
        waiting.go(umbel.receive, left, 10)
        for _ in range(300):
            a, b = umbel.ipc_pair()
            umbel.bsend(a, b"mine")
            assert umbel.receive(b, 10, 0) == b"mine"
            umbel.hclose(a)
            umbel.hclose(b)
        umbel.bsend(right, b"end")
    stop.set()
    for worker in workers:
        worker.join()
    umbel.hclose(left)
    umbel.hclose(right)

    assert failures == []
    wait_until(lambda: threading.active_count() <= others)


# Groups, takeover, owners.


def test_the_group_is_that_which_was_asked_for(tmp_path: Path) -> None:
    import grp

    group = grp.getgrgid(os.getgid())
    for asked in (group.gr_gid, group.gr_name):
        with umbel.listen(f"ipc:{tmp_path}/x.sock", group=asked, mode=0o660):
            found = (tmp_path / "x.sock").stat()
            assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (group.gr_gid, 0o660)


@pytest.mark.parametrize("length", [120, 300])
def test_a_takeover_at_a_name_that_is_too_long_to_connect_to_is_refused(
    tmp_path: Path, length: int
) -> None:
    with pytest.raises(OSError, match="shorten it") as caught:
        umbel.listen(umbel.Address("ipc", f"{tmp_path}/{'n' * length}"), takeover=True)

    assert caught.value.errno == errno.ENAMETOOLONG
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_live_socket_of_another_kind_is_not_taken_over(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(path)
        if kind == socket.SOCK_SEQPACKET:
            other.listen()

        with pytest.raises(OSError, match="another kind") as caught:
            umbel.listen(f"ipc:{path}", takeover=True)
        assert caught.value.errno == errno.EADDRINUSE
        assert os.listdir(tmp_path) == ["x.sock"]
        with socket.socket(socket.AF_UNIX, kind) as client:
            client.connect(path)

    umbel.hclose(umbel.listen(f"ipc:{path}", takeover=True))  # it is stale now


def test_an_unknown_group_is_einval_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no group") as caught:
        umbel.listen(f"ipc:{tmp_path}/x.sock", group="no such group")

    assert caught.value.errno == errno.EINVAL
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_mode_holds_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        listener = umbel.listen(f"ipc:{tmp_path}/x.sock", mode=0o620)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "x.sock").stat().st_mode) == 0o620
    umbel.hclose(listener)


def test_who_holds_a_name_is_named_by_pid(tmp_path: Path) -> None:
    if not os.path.exists("/proc/net/unix"):
        pytest.skip("needs /proc")
    abstract = f"@umbel-test-owner-{os.getpid()}"
    for path in (str(tmp_path / "x.sock"), abstract):
        with (
            umbel.ipc_listen(path),
            pytest.raises(OSError, match=f"process {os.getpid()}") as caught,
        ):
            umbel.ipc_listen(path)
        assert caught.value.errno == errno.EADDRINUSE


def test_a_takeover_leaves_no_gap_and_the_old_one_serves_its_queue(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"
    old = umbel.ipc_listen(path)
    queued = umbel.ipc_connect(path)

    new = umbel.listen(f"ipc:{path}", takeover=True, mode=0o600)
    later = umbel.ipc_connect(path)
    umbel.bsend(queued, b"old")
    umbel.bsend(later, b"new")

    for listener, word in ((old, b"old"), (new, b"new")):
        server = umbel.accept(listener, 0)
        assert umbel.brecv(server, 3) == word
        umbel.hclose(server)
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, 0)
    umbel.hclose(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # the new one's, still there
    exchange(new, path)
    for handle in (new, queued, later):
        umbel.hclose(handle)
    assert os.listdir(tmp_path) == []


def test_a_takeover_of_nothing_just_listens(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.listen(f"ipc:{path}", takeover=True) as listener:
        exchange(listener, path)

    assert os.listdir(tmp_path) == []


def test_what_is_for_a_file_is_refused_for_an_abstract_name() -> None:
    with pytest.raises(umbel.NotSupportedError, match="mode= is for a file"):
        umbel.listen("ipc:@umbel-no-file", mode=0)
    with pytest.raises(umbel.NotSupportedError, match="group= is for a file"):
        umbel.listen("ipc:@umbel-no-file", group=0)


def test_a_takeover_never_replaces_a_file_or_an_abstract_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")

    with pytest.raises(OSError, match="no socket") as caught:
        umbel.listen(f"ipc:{tmp_path}/file", takeover=True)
    with pytest.raises(umbel.NotSupportedError):
        umbel.listen("ipc:@umbel-test-takeover", takeover=True)

    assert caught.value.errno == errno.EADDRINUSE
    assert (tmp_path / "file").read_text() == "precious"


def test_takeovers_under_load_lose_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    served: list[bytes] = []
    stop: list[str] = []

    def serve(listener: umbel.ListenerHandle) -> None:
        with listener:
            while not stop:
                try:
                    s = umbel.accept(listener, umbel.within(0.05))
                except umbel.DeadlineError:
                    continue
                with s:
                    served.append(umbel.brecv(s, 4))

    def connect() -> None:
        for i in range(200):
            with umbel.ipc_connect(path, umbel.within(20)) as s:
                umbel.bsend(s, i.to_bytes(4, "big"))
        stop.append("all were served")

    with umbel.bundle() as b:
        b.go(serve, umbel.ipc_listen(path))
        b.go(connect)
        while not stop:
            b.go(serve, umbel.listen(f"ipc:{path}", takeover=True))
            umbel.msleep(umbel.within(0.005))

    assert sorted(served) == [i.to_bytes(4, "big") for i in range(200)]


# Signals and deaths at any time.


def test_a_storm_of_signals_disturbs_no_call(tmp_path: Path) -> None:
    code = """
import signal, sys
import umbel
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
path = sys.argv[1]
with umbel.ipc_listen(path, backlog=1) as listener:
    waiting = []
    try:
        while True:
            waiting.append(umbel.ipc_connect(path, 0))
    except umbel.DeadlineError:
        pass
    deadline = umbel.within(0.2)
    try:
        umbel.ipc_connect(path, deadline)      # full: until the deadline, not before
    except umbel.DeadlineError:
        assert umbel.now() >= deadline
    def serve():
        for s in listener:
            while data := umbel.receive(s):
                umbel.bsend(s, data)
            umbel.hclose(s)
    with umbel.bundle() as b:
        b.go(serve)
        for s in waiting:
            umbel.hclose(s)
        for _ in range(200):
            s = umbel.ipc_connect(path)
            with umbel.bundle() as sending:
                sending.go(umbel.bsend, s, bytes(300_000))
                assert umbel.brecv(s, 300_000) == bytes(300_000)
            umbel.ipc_close(s)
        umbel.hclose(b)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    run_python(code, str(tmp_path / "x.sock"))


_STEPS = """
import sys
import umbel
path, step = sys.argv[1:]
def at(name):
    if name == step:
        print("at " + name, flush=True)
        umbel.msleep(-1)
at("start")
s = umbel.ipc_connect(path)
at("connected")
umbel.bsend(s, b"A" * 10)
at("sent")
umbel.brecv(s, 5)
at("half read")
umbel.brecv(s, 5)
at("read")
umbel.done(s)
at("done")
umbel.ipc_close(s)
at("closed")
"""


@pytest.mark.parametrize(
    ("step", "received", "outcome"),
    [
        ("connected", b"", umbel.BrokenStreamError),
        ("sent", b"A" * 10, umbel.BrokenStreamError),
        ("half read", b"A" * 10, umbel.BrokenStreamError),
        ("read", b"A" * 10, None),
        ("done", b"A" * 10, None),
    ],
)
def test_a_peer_killed_at_any_step_is_told_as_far_as_it_can_be_known(
    tmp_path: Path, step: str, received: bytes, outcome: type[OSError] | None
) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path) as listener, python(_STEPS, str(path), step) as peer:
        server = umbel.ipc_accept(listener, umbel.within(20))
        umbel.bsend(server, b"B" * 10)
        assert peer.stdout is not None
        assert peer.stdout.readline() == f"at {step}\n"
        peer.send_signal(signal.SIGKILL)
        got = b""
        raised: BaseException | None = None
        try:
            while chunk := umbel.receive(server, 100, umbel.within(20)):
                got += chunk
            umbel.close(server, umbel.within(20))
        except OSError as error:
            raised = error
            umbel.hclose(server)

    assert got in (received, b"")  # a reset may overtake what was sent
    assert type(raised) is (outcome or type(None))


# Limits, and what a name means.


def test_a_wrong_buffer_size_is_refused_before_anybody_is_connected_to(
    tmp_path: Path,
) -> None:
    with umbel.ipc_listen(tmp_path / "x.sock") as listener:
        with pytest.raises(OSError, match="give 0 to") as caught:
            umbel.connect(listener.address, buffer_size=-1)
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, 0)

    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "options",
    [
        {"buffer_size": 1 << 31},
        {"buffer_size": -1},
        {"mode": 1 << 40},
        {"mode": -1},
        {"group": 1 << 33},
    ],
    ids=str,
)
def test_numbers_that_the_kernel_cannot_take_are_einval(
    tmp_path: Path, options: dict[str, int]
) -> None:
    path = tmp_path / "x.sock"

    with pytest.raises(OSError, match=r"=-?\d+: give 0 to") as caught:
        umbel.listen(f"ipc:{path}", **options)

    assert caught.value.errno == errno.EINVAL
    assert not path.exists()


@pytest.mark.parametrize("takeover", [False, True])
def test_a_path_that_is_too_long_to_be_removed_again_is_refused(
    tmp_path: Path, takeover: bool
) -> None:
    path = f"{tmp_path}/{'.//' * 1400}x.sock/../y"

    with pytest.raises(OSError, match="can have 4095 bytes") as caught:
        umbel.listen(f"ipc:{path}", takeover=takeover)

    assert caught.value.errno == errno.ENAMETOOLONG
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_encoded_is_einval() -> None:
    for call in (umbel.listen, umbel.connect):
        with pytest.raises(OSError, match="can't be encoded") as caught:
            call("ipc:\ud800x")
        assert caught.value.errno == errno.EINVAL


def test_both_sides_mean_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    monkeypatch.chdir(tmp_path)

    with umbel.ipc_listen("link/../x.sock") as listener:
        assert (tmp_path / "deep" / "x.sock").exists()
        exchange(listener, "link/../x.sock")
        exchange(listener, listener.address.location)
    assert not (tmp_path / "deep" / "x.sock").exists()
    for wrong in ("missing/../x.sock", "x.sock/", "x.sock/."):
        with pytest.raises(FileNotFoundError):
            umbel.ipc_listen(wrong)


def _by_number(name: str) -> tuple[int, str]:
    return len(name), name


def test_a_held_name_is_not_said_to_be_held_by_who_accepted_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sock"
    honest = os.listdir
    # The worker's process, which is the younger one, would be found first.
    monkeypatch.setattr(
        os, "listdir", lambda *a: sorted(honest(*a), key=_by_number, reverse=True)
    )
    code = (
        "import sys, umbel; s = umbel.ipc_fromfd(0); print('ready', flush=True); "
        "umbel.receive(s)"
    )
    with umbel.ipc_listen(path) as listener:
        client = umbel.ipc_connect(path)
        server = umbel.ipc_accept(listener)
        worker = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=server.fileno(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        worker.stdout.readline()
        with pytest.raises(OSError, match=f"live process {os.getpid()}:"):
            umbel.ipc_listen(path)
        umbel.hclose(client)
        umbel.hclose(server)
        worker.wait()
        worker.stdout.close()


def test_after_a_takeover_nobody_is_named_who_may_have_lost_the_path(
    tmp_path: Path,
) -> None:
    # The kernel lists the old listener by the path still, and the new one by another.
    path = tmp_path / "x.sock"
    with umbel.ipc_listen(path), umbel.listen(f"ipc:{path}", takeover=True):
        with pytest.raises(OSError, match="in use by a live process: stop") as caught:
            umbel.ipc_listen(path)

        assert caught.value.errno == errno.EADDRINUSE


def test_a_takeover_elsewhere_keeps_nobody_from_being_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    taken, held = tmp_path / "elsewhere" / "x.sock", tmp_path / "x.sock"

    with (
        umbel.ipc_listen(taken),
        umbel.listen(f"ipc:{taken}", takeover=True),
        umbel.ipc_listen(held),
        pytest.raises(OSError, match=f"live process {os.getpid()}:"),
    ):
        umbel.ipc_listen(held)


TAKE_OVER = """
import sys, umbel
address = "ipc:" + sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
with umbel.listen(address, takeover=True):
    print("listening", flush=True)
    sys.stdin.read()
"""


def test_who_removes_its_file_leaves_one_that_a_takeover_moves_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sock"
    old = umbel.ipc_listen(path)
    honest = os.unlink

    with python(TAKE_OVER, str(path)) as new:
        assert new.stdin is not None
        assert new.stdout is not None
        assert new.stdout.readline() == "ready\n"

        def unlink(name: str | bytes) -> None:
            # Between the look and the removal the other one begins, and has to wait.
            monkeypatch.setattr(os, "unlink", honest)
            assert new.stdin is not None
            new.stdin.write("go\n")
            new.stdin.flush()
            time.sleep(0.3)  # enough for it, if nothing held it back
            honest(name)

        monkeypatch.setattr(os, "unlink", unlink)
        umbel.hclose(old)
        assert new.stdout.readline() == "listening\n"
        umbel.hclose(umbel.ipc_connect(path))
        new.stdin.close()
        new.wait()
    assert not path.exists()


def test_descriptors_are_refused_before_anyone_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sock"
    allowed: list[int] = []
    honest = ipc._is_connected

    def look(sock: socket.SocketType, name: bytes, address: umbel.Address) -> bool:
        allowed.append(sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS))
        return honest(sock, name, address)

    with umbel.ipc_listen(path):
        try:
            umbel.hclose(umbel.connect(f"ipc:{path}", descriptors=False))
        except umbel.NotSupportedError:
            pytest.skip("this kernel can't refuse them")
        monkeypatch.setattr(ipc, "_is_connected", look)
        umbel.hclose(umbel.connect(f"ipc:{path}", descriptors=False))

    assert allowed == [0]


def test_a_folder_that_cannot_be_read_holds_no_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    honest = os.open

    def refuse(name: bytes | str, flags: int) -> int:
        if os.path.isdir(name):
            raise PermissionError(errno.EACCES, "can't be read")
        return honest(name, flags)

    monkeypatch.setattr(os, "open", refuse)
    with umbel.ipc_listen(path):
        umbel.hclose(umbel.ipc_connect(path))
    assert not path.exists()
    with umbel.listen(f"ipc:{path}", takeover=True):
        assert path.exists()
    assert not path.exists()


def test_what_is_no_ipc_listener_is_not_asked_to_be_a_stream() -> None:
    match = "no IPC socket: it is for"
    with umbel.bundle() as it, pytest.raises(umbel.NotSupportedError, match=match):
        umbel.ipc_accept(it, 0)  # type: ignore[arg-type]


def test_a_live_socket_of_another_kind_whose_queue_is_full_is_not_taken_over(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "x.sock")
    kind = socket.SOCK_SEQPACKET
    with (
        socket.socket(socket.AF_UNIX, kind) as other,
        socket.socket(socket.AF_UNIX, kind) as waiting,
    ):
        other.bind(path)
        other.listen(0)
        waiting.connect(path)  # nobody accepts it: there is no room for a second

        with pytest.raises(OSError, match="another kind"):
            umbel.listen(f"ipc:{path}", takeover=True)
