"""Who is at the other end, and who may be."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import pickle
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import umbel
from tests.support import open_descriptors, python
from umbel import aio, users
from umbel.testing.conformance.looking import few_descriptors

CLIENT = """
import os, sys
import umbel
for end in umbel.ipc_pair():
    umbel.hclose(end)  # what is imported late may be another user's
if len(sys.argv) > 2:
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
s = umbel.ipc_connect(sys.argv[1])
print("connected", flush=True)
umbel.fdin(0)
umbel.hclose(s)
"""


def test_the_identity_of_another_process_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path) as listener, python(CLIENT, str(path)) as client:
        server = umbel.ipc_accept(listener)
        peer = umbel.query(server, umbel.PeerIdentity)
        client.communicate("\n")
        umbel.hclose(server)

    assert peer[:3] == (client.pid, os.getuid(), os.getgid())


def test_the_pidfd_is_of_the_peer_and_of_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.ipc_listen(path) as listener, python(CLIENT, str(path)) as client:
        server = umbel.ipc_accept(listener)
        before = open_descriptors()
        peer = umbel.query(server, umbel.PeerIdentity)
        unasked = open_descriptors()
        pidfd = peer.pidfd
        if pidfd < 0:
            pytest.skip("needs Linux 6.5")
        again = umbel.query(server, umbel.PeerIdentity)
        assert again.pidfd == peer.pidfd == pidfd
        client.send_signal(signal.SIGKILL)
        readable, _, _ = select.select([pidfd], [], [], 20)
        umbel.hclose(server)

    assert again == peer
    assert readable == [pidfd]  # it tells of the end of the process
    assert pidfd not in open_descriptors()
    assert pidfd not in before
    assert unasked == before


def test_an_identity_is_copied_without_the_descriptor() -> None:
    left, right = umbel.ipc_pair()
    peer = umbel.query(left, umbel.PeerIdentity)
    copied = pickle.loads(pickle.dumps(peer))
    umbel.hclose(left)
    umbel.hclose(right)

    assert copied == peer == (os.getpid(), os.getuid(), os.getgid())
    assert copied.pidfd == -1
    assert peer.pidfd == -1  # never asked for while the stream was open
    assert repr(copied).startswith("PeerIdentity(pid=")


def test_who_can_not_be_judged_for_want_of_a_descriptor_is_not_sent_away(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"

    def allow(peer: umbel.PeerIdentity) -> bool:
        return peer.pidfd >= 0

    with umbel.listen(f"ipc:{path}", allow=allow) as listener:
        first, second = umbel.ipc_connect(path), umbel.ipc_connect(path)
        for room in (1, 0):
            with few_descriptors(room), pytest.raises(OSError, match=r"(?i)too many"):
                umbel.accept(listener, umbel.within(5))
        umbel.bsend(first, b"1")
        umbel.bsend(second, b"2")
        for expected in (b"1", b"2"):
            server = umbel.accept(listener, umbel.within(5))
            assert umbel.brecv(server, 1) == expected
            umbel.hclose(server)
        umbel.hclose(first)
        umbel.hclose(second)


def test_nor_is_left_open_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with umbel.listen(f"ipc:{path}", allow=lambda p: p.pidfd >= 0) as listener:
        client = umbel.ipc_connect(path)
        with few_descriptors(1), pytest.raises(OSError, match=r"(?i)too many"):
            umbel.accept(listener, umbel.within(5))
    assert umbel.receive(client, 1, umbel.within(5)) == b""
    umbel.hclose(client)


def test_the_identity_is_that_of_a_forked_peer(tmp_path: Path) -> None:
    left, right = umbel.ipc_pair()
    # A pair's peer is who made it, whoever holds it now.
    assert umbel.query(left, umbel.PeerIdentity).pid == os.getpid()
    umbel.hclose(left)
    umbel.hclose(right)


def test_an_allowed_peer_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    asked: list[umbel.PeerIdentity] = []

    def allow(peer: umbel.PeerIdentity) -> bool:
        asked.append(peer)
        return umbel.same_user(peer)

    with umbel.listen(f"ipc:{path}", allow=allow) as listener:
        client = umbel.ipc_connect(path)
        server = umbel.accept(listener)
        umbel.bsend(client, b"x")
        assert umbel.brecv(server, 1) == b"x"
        umbel.hclose(client)
        umbel.hclose(server)

    assert [peer.pid for peer in asked] == [os.getpid()]


def test_a_refused_peer_sees_the_end_and_the_next_is_served(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    answers = [False, True]

    with umbel.listen(f"ipc:{path}", allow=lambda _: answers.pop(0)) as listener:
        refused, allowed = umbel.ipc_connect(path), umbel.ipc_connect(path)
        umbel.bsend(allowed, b"mine")
        server = umbel.accept(listener)

        assert umbel.receive(refused, 1, umbel.within(5)) == b""
        assert umbel.brecv(server, 4) == b"mine"
        for stream in (refused, allowed, server):
            umbel.hclose(stream)


def test_a_refused_peer_that_had_sent_is_reset(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with umbel.listen(f"ipc:{path}", allow=lambda _: False) as listener:
        refused = umbel.ipc_connect(path)
        umbel.bsend(refused, b"never read")
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, 0)

        with pytest.raises(umbel.BrokenStreamError):
            umbel.receive(refused, 1, umbel.within(5))
        umbel.hclose(refused)


def test_a_peer_for_whom_the_question_fails_is_sent_away_and_the_next_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.sock"
    asked: list[umbel.PeerIdentity] = []

    def allow(peer: umbel.PeerIdentity) -> bool:
        asked.append(peer)
        if len(asked) == 1:
            raise KeyError(peer.uid)
        return True

    with umbel.listen(f"ipc:{path}", allow=allow) as listener:
        unlucky, lucky = umbel.ipc_connect(path), umbel.ipc_connect(path)
        server = umbel.accept(listener)

        assert umbel.receive(unlucky, 1, umbel.within(5)) == b""
        umbel.bsend(server, b"x")
        assert umbel.brecv(lucky, 1, umbel.within(5)) == b"x"
        for stream in (unlucky, lucky, server):
            umbel.hclose(stream)

    (record,) = caplog.records
    assert f"process {os.getpid()} was sent away" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


@pytest.mark.parametrize("kind", [MemoryError, RecursionError])
def test_what_is_who_accepts_fault_is_raised_there(
    tmp_path: Path, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def allow(_: umbel.PeerIdentity) -> bool:
        raise kind

    with umbel.listen(f"ipc:{tmp_path}/x.sock", allow=allow) as listener:
        client = umbel.connect(listener.address)
        with pytest.raises(kind):
            umbel.accept(listener, umbel.within(5))
        umbel.hclose(client)

    assert not caplog.records


def test_peers_that_the_question_fails_for_hold_up_no_server(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    asked: list[umbel.PeerIdentity] = []

    def allow(peer: umbel.PeerIdentity) -> bool:
        asked.append(peer)
        if len(asked) <= 8:
            raise FileNotFoundError(peer.pid)  # an OSError, as a failed accept has
        return True

    def answer(stream: umbel.StreamHandle) -> None:
        umbel.bsend(stream, b"served")

    listener = umbel.listen(f"ipc:{path}", allow=allow)
    for _ in range(8):
        umbel.hclose(umbel.ipc_connect(path))
    client = umbel.ipc_connect(path)
    server = umbel.go(umbel.serve, listener, answer)

    # As failed accepts they would take 4.5 s.
    assert umbel.brecv(client, 6, umbel.within(3)) == b"served"
    umbel.hclose(client)
    umbel.hclose(server)


def test_an_async_question_is_refused_at_once(tmp_path: Path) -> None:
    async def allow(_: umbel.PeerIdentity) -> bool:
        return False

    with pytest.raises(TypeError, match="allow is an async function"):
        umbel.listen(f"ipc:{tmp_path}/x.sock", allow=allow)

    assert not list(tmp_path.iterdir())


def test_a_question_that_turns_out_to_be_async_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask(_: umbel.PeerIdentity) -> bool:
        return False

    with umbel.listen(f"ipc:{tmp_path}/x.sock", allow=lambda p: ask(p)) as listener:  # noqa: PLW0108 - which hides it
        client = umbel.connect(listener.address)
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, 0)

        assert umbel.receive(client, 1, umbel.within(5)) == b""
        umbel.hclose(client)
    assert "async function" in caplog.text


def test_who_is_canceled_while_a_peer_is_judged_is_told(tmp_path: Path) -> None:
    with umbel.listen(
        f"ipc:{tmp_path}/x.sock", allow=lambda _: umbel.msleep(-1)
    ) as listener:
        client = umbel.connect(listener.address)
        accepting = umbel.go(umbel.accept, listener)
        umbel.hclose(accepting)  # hangs if the cancellation is lost

        assert umbel.receive(client, 1, umbel.within(5)) == b""
        umbel.hclose(client)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_same_user(tmp_path: Path) -> None:
    name = f"@umbel-test-users-{os.getpid()}"

    with (
        umbel.listen(f"ipc:{name}", allow=umbel.same_user) as listener,
        python(CLIENT, name, "65534") as client,
    ):
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, umbel.within(0.05))
        client.communicate("\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_no_permission_is_eacces_and_says_so(tmp_path: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = f"{folder}/x.sock"
        with (
            umbel.listen(f"ipc:{path}", mode=0o600) as listener,
            python(CLIENT, path, "65534") as client,
        ):
            _, err = client.communicate("\n", timeout=30)
            with pytest.raises(umbel.DeadlineError):
                umbel.accept(listener, 0)

    assert client.returncode == 1
    assert "no permission" in err


#: How many come before the flood ends, which is told by a test that fails.
FLOOD = 100_000


def besieged(path: Path) -> tuple[umbel.ListenerHandle, list[umbel.PeerIdentity]]:
    """Make a listener whose queue is never empty, and give those it has sent away."""
    refused: list[umbel.PeerIdentity] = []

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    def refuse(peer: umbel.PeerIdentity) -> bool:
        refused.append(peer)
        if len(refused) < FLOOD:  # or who is held up would be so for ever
            connect()
        return False

    listener = umbel.listen(f"ipc:{path}", allow=refuse)
    connect()
    return listener, refused


def test_a_flood_of_peers_sent_away_keeps_no_deadline_and_no_coroutine_waiting(
    tmp_path: Path,
) -> None:
    turns = 0

    def count_turns() -> None:
        nonlocal turns
        while True:
            umbel.yield_()
            turns += 1

    listener, refused = besieged(tmp_path / "x.sock")
    others = umbel.go(count_turns)
    with pytest.raises(umbel.DeadlineError):
        umbel.accept(listener, umbel.within(0.1))
    assert len(refused) < FLOOD
    umbel.hclose(others)
    umbel.hclose(listener)

    assert turns > 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_keeps_no_task_waiting_either(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        listener, refused = besieged(tmp_path / "x.sock")

        async def close() -> None:
            while len(refused) < 100:
                await anyio.sleep(0)
            umbel.hclose(listener)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            with pytest.raises(umbel.BadHandleError, match="closed meanwhile"):
                await aio.accept(listener)
        umbel.msleep(0)  # nobody else is told

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    ("uid_map", "is_allowed"),
    [("0 0 4294967295", True), ("0 200000 1\n65534 265534 1", False)],
)
def test_whoever_has_no_number_here_is_not_our_own_user(
    uid_map: str, is_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"/proc/self/uid_map": uid_map, "/proc/sys/kernel/overflowuid": "65534\n"}
    monkeypatch.setattr(
        users, "open", lambda name: io.StringIO(files[name]), raising=False
    )
    monkeypatch.setattr(os, "geteuid", lambda: 65534)

    assert umbel.same_user(umbel.PeerIdentity(1, 65534, 65534)) == is_allowed
    assert umbel.same_user(umbel.PeerIdentity(os.getpid(), 65534, 65534))
    assert not umbel.same_user(umbel.PeerIdentity(1, 0, 0))


@pytest.mark.parametrize(
    "accept",
    [umbel.accept, lambda *args: asyncio.run(aio.accept(*args))],
    ids=["blocking", "awaited"],
)
def test_peers_that_are_sent_away_without_end_keep_no_accept_from_its_deadline(
    tmp_path: Path, accept: Callable[[umbel.ListenerHandle, int], object]
) -> None:
    path = tmp_path / "x.sock"
    far_off = umbel.within(1)

    def refuse(_: umbel.PeerIdentity) -> bool:
        if umbel.now() < far_off:  # another one comes: there is always somebody
            umbel.hclose(umbel.ipc_connect(path))
        return False

    with umbel.listen(f"ipc:{path}", allow=refuse) as listener:
        umbel.hclose(umbel.ipc_connect(path))

        with pytest.raises(umbel.DeadlineError):
            accept(listener, umbel.within(0.01))
        assert umbel.now() < far_off


def test_who_has_no_descriptor_to_find_out_lets_nobody_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(name: str) -> io.StringIO:
        if name == "/proc/self/uid_map":
            raise OSError(errno.EMFILE, "no descriptor is left")
        return io.StringIO("65534")

    monkeypatch.setattr(users, "open", read, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)

    with pytest.raises(OSError, match="no descriptor is left"):
        umbel.same_user(umbel.PeerIdentity(1, 65534, 65534))
