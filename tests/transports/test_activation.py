"""Socket activation, as systemd does it: descriptors from 3 on, named in variables."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import umbel
from umbel import activation

SERVICE = """
import os, sys
import umbel
if sys.argv[1] == "other pid":
    os.environ["LISTEN_PID"] = "1"
else:
    os.environ["LISTEN_PID"] = str(os.getpid())
found = umbel.activated_listeners()
print([name for name, _ in found], "LISTEN_FDS" in os.environ, flush=True)
assert umbel.activated_listeners() == []
for _, listener in found:
    assert not os.get_inheritable(umbel.query(listener, umbel.spi.Fileno).fd)
    with umbel.accept(listener, umbel.within(20)) as s:
        umbel.bsend(s, b"activated")
    umbel.hclose(listener)
"""


def start(kind: str, *listeners: socket.socket, names: str) -> subprocess.Popen[str]:
    """Run the service with *listeners* as its descriptors from 3 on."""
    count = len(listeners)
    moves = " ".join(f"{3 + i}<&{sock.fileno()}" for i, sock in enumerate(listeners))
    command = f'exec "$0" -c "$1" "$2" {moves}'
    code = "import umbel.spi\n" + SERVICE
    return subprocess.Popen(
        ["bash", "-c", command, sys.executable, code, kind],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[sock.fileno() for sock in listeners],
        env={**os.environ, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names},
    )


def listening(path: Path | None) -> socket.socket:
    """Listen at a path; None: by TCP."""
    sock = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
    sock.bind(("127.0.0.1", 0) if path is None else str(path))
    sock.listen()
    # Out of the way of the numbers that the service gets.
    high = socket.socket(
        fileno=os.dup(sock.fileno()) if sock.fileno() > 20 else _high(sock)
    )
    sock.close()
    return high


def _high(sock: socket.socket) -> int:
    return fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100)


def test_listeners_are_taken_over_by_name(tmp_path: Path) -> None:
    one, two = listening(tmp_path / "one"), listening(tmp_path / "two")

    with one, two, start("mine", one, two, names="first:second") as service:
        for name in ("one", "two"):
            with umbel.ipc_connect(tmp_path / name) as client:
                assert umbel.brecv(client, 9, umbel.within(20)) == b"activated"
        assert service.stdout is not None
        out = service.stdout.read()
        assert service.wait(20) == 0

    assert out == "['first', 'second'] False\n"
    assert (tmp_path / "one").exists()  # it is the manager's


@pytest.mark.parametrize(
    ("names", "found"),
    [("", ["unknown", "unknown"]), ("first", ["first", "unknown"])],
    ids=["none", "one"],
)
def test_a_listener_without_a_name_is_unknown(
    tmp_path: Path, names: str, found: list[str]
) -> None:
    one, two = listening(tmp_path / "one"), listening(tmp_path / "two")

    with one, two, start("mine", one, two, names=names) as service:
        for name in ("one", "two"):
            with umbel.ipc_connect(tmp_path / name) as client:
                assert umbel.brecv(client, 9, umbel.within(20)) == b"activated"
        assert service.stdout is not None
        assert service.stdout.readline() == f"{found} False\n"


def test_so_are_listeners_of_tcp_and_what_is_none_is_left_alone(
    tmp_path: Path,
) -> None:
    one, two = listening(tmp_path / "one"), listening(None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as low:
        other = socket.socket(fileno=_high(low))
    sockets = one, other, two

    with one, two, other, start("mine", *sockets, names="first:none:third") as service:
        places = f"ipc:{tmp_path}/one", "tcp://{}:{}".format(*two.getsockname())
        for place in places:
            with umbel.connect(place) as client:
                assert umbel.brecv(client, 9, umbel.within(20)) == b"activated"
        assert service.stdout is not None
        out = service.stdout.read()
        assert service.wait(20) == 0

    assert out == "['first', 'third'] False\n"


def test_one_of_a_scheme_that_is_forbidden_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_ALLOW", "ipc")
    one, two = listening(tmp_path / "one"), listening(None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as low:
        other = socket.socket(fileno=_high(low))
    sockets = two, other, one

    with one, two, other, start("mine", *sockets, names="a:b:c") as service:
        with umbel.ipc_connect(tmp_path / "one") as client:
            assert umbel.brecv(client, 9, umbel.within(20)) == b"activated"
        assert service.stdout is not None
        assert service.stdout.read() == "['c'] False\n"
        assert service.wait(20) == 0


def test_a_gap_among_the_descriptors_is_not_filled_by_our_own(tmp_path: Path) -> None:
    code = (
        "import os, umbel\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='3')\n"
        "os.closerange(4, 50)\n"
        "try: print(umbel.activated_listeners())\n"
        "except OSError as error: print(error.errno, os.listdir('/proc/self/fd'))"
    )
    with listening(tmp_path / "x.sock") as one:
        command = f'exec "$0" -c "$1" 3<&{one.fileno()}'
        out = subprocess.run(
            ["bash", "-c", command, sys.executable, code],
            stdout=subprocess.PIPE,
            pass_fds=[one.fileno()],
            text=True,
            check=True,
        ).stdout

    assert out.startswith(f"{errno.EBADF} [")
    assert "'3'" in out  # it is left to us


def test_what_is_for_another_process_is_left_alone(tmp_path: Path) -> None:
    one = listening(tmp_path / "one")

    with one, start("other pid", one, names="first") as service:
        assert service.stdout is not None
        out = service.stdout.read()
        assert service.wait(20) == 0

    assert out == "[] False\n"


def test_without_a_service_manager_there_are_none() -> None:
    assert umbel.activated_listeners() == []


def test_a_count_that_is_no_number_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "\N{SUPERSCRIPT TWO}")

    assert umbel.activated_listeners() == []


def test_a_descriptor_that_is_not_there_keeps_all_from_being_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(tmp_path / "x.sock") as one:
        monkeypatch.setattr(activation, "FIRST", one.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(1 << 20))

        with pytest.raises(OSError, match="Bad file descriptor"):
            umbel.activated_listeners()

        with umbel.ipc_connect(tmp_path / "x.sock") as client:
            umbel.hclose(client)  # it still listens
