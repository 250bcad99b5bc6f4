"""The command line, as its users run it: in processes of its own."""

from __future__ import annotations

import errno
import io
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import termios
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

import umbel
from tests.support import is_listening, pattern, python, wait_until
from umbel.cli.exchange import Exchange
from umbel.cli.files import Input, Output
from umbel.cli.progress import Meter
from umbel.sockets.unread import ask

ROOT = Path(__file__).parents[2]

Command = subprocess.Popen[bytes]
File = int | BinaryIO


@contextmanager
def command(
    *arguments: object,
    stdin: File = subprocess.DEVNULL,
    stdout: File = subprocess.PIPE,
    shell: str = "",
    **env: str,
) -> Iterator[Command]:
    """Run umbel; *shell* is a line of a shell's, with "$@" for the command."""
    with subprocess.Popen(
        [
            *(("sh", "-c", shell, "sh") if shell else ()),
            *(sys.executable, "-m", "umbel", *map(str, arguments)),
        ],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **env},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def listening(
    path: Path,
    *arguments: object,
    stdin: File = subprocess.DEVNULL,
    stdout: File = subprocess.PIPE,
    shell: str = "",
) -> Iterator[Command]:
    with command(
        "listen", f"ipc:{path}", *arguments, stdin=stdin, stdout=stdout, shell=shell
    ) as process:
        wait_until(lambda: is_listening(path) or process.poll() is not None)
        yield process


def finish(process: Command, status: int = 0) -> tuple[bytes, str]:
    out, err = process.communicate(timeout=40)
    assert process.returncode == status, err.decode()
    return out, err.decode()


def test_the_demo_comes_out_right() -> None:
    with command("demo") as process:
        out, err = finish(process)

    text = out.decode()
    assert err == ""
    assert text.endswith("all came out right\n")
    for step in ("ipc_listen", "ipc_accept", "ipc_connect", "bsend", "brecv"):
        assert re.search(rf"\d+\.\d+ ms  .*{step}", text)
    for name in ("EBADF", "ETIMEDOUT", "ECONNRESET"):
        assert name in text


def test_a_demo_that_comes_out_wrong_says_so() -> None:
    with command("demo", UMBEL_DISABLE="ipc") as process:
        _, err = finish(process, errno.ENOTSUP)

    assert "blocked" in err


def test_the_demo_runs_no_code_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "pluggy.py").write_text("raise SystemExit('not ours')")

    with subprocess.Popen(
        [sys.executable, "-P", "-m", "umbel", "demo"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, err = finish(process)

    assert out.endswith(b"all came out right\n")
    assert err == ""


def test_ctrl_c_ends_the_demo_of_both_processes_without_a_word() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "umbel", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert b"in processes" in process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, err = finish(process, 128 + signal.SIGINT)

    assert err == ""


def test_an_answerer_that_ends_early_ends_the_demo(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif '--answer-at' in sys.orig_argv: sys.exit('not today')\n"
    )

    with command("demo", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])) as p:
        _, err = finish(p, errno.ECONNRESET)

    assert "not today" in err
    assert "umbel demo: ECONNRESET: the answerer has ended" in err


def test_a_file_is_carried_byte_for_byte(tmp_path: Path) -> None:
    source, target, path = tmp_path / "in", tmp_path / "out", tmp_path / "x.sock"
    source.write_bytes(pattern(30_000_001))

    with (
        source.open("rb") as given,
        target.open("wb") as taken,
        listening(path, stdout=taken) as listen,
        command("connect", f"ipc:{path}", stdin=given) as connect,
    ):
        finish(connect)
        finish(listen)

    assert target.read_bytes() == source.read_bytes()
    assert not path.exists()


def test_a_pipe_is_carried_byte_for_byte_in_either_direction(tmp_path: Path) -> None:
    path, target = tmp_path / "x.sock", tmp_path / "out"
    data = pattern(3_000_001)

    with (
        target.open("wb") as taken,
        listening(path, stdin=subprocess.PIPE, stdout=taken) as listen,
        command("connect", f"ipc:{path}", stdin=subprocess.PIPE) as connect,
    ):
        assert listen.stdin is not None
        with listen.stdin as there:
            there.write(b"and back")
        listen.stdin = None
        out, _ = connect.communicate(data, timeout=40)
        finish(listen)

    assert (out, connect.returncode) == (b"and back", 0)
    assert target.read_bytes() == data


def test_a_listeners_file_reaches_a_connector_without_input(tmp_path: Path) -> None:
    path, source = tmp_path / "x.sock", tmp_path / "in"
    source.write_bytes(pattern(5_000_000))

    with (
        source.open("rb") as given,
        listening(path, stdin=given) as listen,
        command("connect", f"ipc:{path}") as connect,
    ):
        out, _ = finish(connect)
        finish(listen)

    assert out == pattern(5_000_000)


def test_both_without_input_part_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path) as listen, command("connect", f"ipc:{path}") as connect:
        finish(connect)
        finish(listen)


def test_the_end_of_input_leaves_receiving_open(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, stdin=subprocess.PIPE) as listen:
        assert listen.stdin is not None
        with umbel.ipc_connect(path) as client:
            listen.stdin.write(b"all I have to say")
            listen.stdin.close()
            assert b"".join(client) == b"all I have to say"
            umbel.bsend(client, b"but I go on")
        assert listen.stdout is not None
        assert listen.stdout.read() == b"but I go on"
        assert listen.wait(40) == 0


def test_a_terminal_is_not_read_on_after_the_peers_end(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    ours, theirs = pty.openpty()

    with listening(path, stdin=theirs) as listen:
        with umbel.ipc_connect(path) as client:
            umbel.bsend(client, b"last words")
        out, _ = finish(listen)

    assert out == b"last words"
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("who", ["listen", "connect"])
def test_a_pipe_is_sent_to_its_end_though_the_peer_has_little_to_say(
    tmp_path: Path, who: str
) -> None:
    path, little, target = (tmp_path / name for name in ("x.sock", "little", "out"))
    little.write_bytes(b"ok")
    data = pattern(5_000_001)

    with little.open("rb") as ok, target.open("wb") as taken:
        much, few = (subprocess.PIPE, subprocess.PIPE), (ok, taken)
        first, second = (much, few) if who == "listen" else (few, much)
        with (
            listening(path, stdin=first[0], stdout=first[1]) as listen,
            command(
                "connect", f"ipc:{path}", stdin=second[0], stdout=second[1]
            ) as connect,
        ):
            sender, taker = (listen, connect) if who == "listen" else (connect, listen)
            out, _ = sender.communicate(data, timeout=40)
            finish(taker)

    assert (sender.returncode, out) == (0, b"ok")
    assert target.read_bytes() == data


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_input_gives_after_the_peers_end_is_sent_too(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x.sock"
    pair = socket.socketpair()
    theirs, ours = os.pipe() if kind == "pipe" else [end.detach() for end in pair]

    with listening(path, stdin=theirs) as listen:
        os.close(theirs)
        client = umbel.ipc_connect(path)
        umbel.bsend(client, b"ok")
        umbel.done(client)
        assert listen.stdout is not None
        assert listen.stdout.read() == b"ok"  # to its end: its reader need not wait
        for word in (b"one", b"two"):
            os.write(ours, word)
            assert umbel.brecv(client, 3, umbel.within(20)) == word
        os.close(ours)
        umbel.close(client, umbel.within(20))
        finish(listen)

    for end in pair:
        end.close()


def test_a_socket_that_is_both_input_and_output_sees_the_peers_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"
    ours, both = socket.socketpair()
    ours.settimeout(20)

    with (
        ours,
        both,
        listening(path, stdin=both.fileno(), stdout=both.fileno()) as listen,
    ):
        both.close()
        client = umbel.ipc_connect(path)
        umbel.bsend(client, b"hello")
        umbel.done(client)
        assert ours.recv(5, socket.MSG_WAITALL) == b"hello"
        assert ours.recv(1) == b""
        ours.sendall(b"and our answer")  # which may wait for that end
        ours.close()
        assert umbel.brecv(client, 14, umbel.within(20)) == b"and our answer"
        umbel.close(client, umbel.within(20))
        finish(listen)


def test_a_peer_that_goes_is_told_though_input_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    theirs, ours = os.pipe()

    with listening(path, stdin=theirs) as listen:
        client = umbel.ipc_connect(path)
        umbel.bsend(client, b"ok")
        umbel.done(client)
        assert listen.stdout is not None
        assert listen.stdout.read(2) == b"ok"
        umbel.hclose(client)
        _, err = finish(listen, errno.ECONNRESET)

    assert "killed" in err
    os.close(ours)
    os.close(theirs)


def test_a_peer_that_goes_without_our_last_bytes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, stdin=subprocess.PIPE) as listen:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        client.shutdown(socket.SHUT_WR)
        assert listen.stdin is not None
        listen.stdin.write(bytes(100_000))
        listen.stdin.close()
        wait_until(
            lambda: ask(client.fileno(), termios.FIONREAD) == 100_000, "all of it"
        )
        client.close()
        assert listen.wait(40) == errno.ECONNRESET
        assert listen.stderr is not None
        assert b"ECONNRESET: the peer " in listen.stderr.read()


def test_a_killed_receiver_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with (
        listening(path) as listen,
        open("/dev/zero", "rb") as endless,
        command("connect", f"ipc:{path}", stdin=endless) as connect,
    ):
        assert listen.stdout is not None
        listen.stdout.read(1_000_000)
        listen.send_signal(signal.SIGKILL)
        _, err = finish(connect, errno.ECONNRESET)

    assert "ECONNRESET" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("stdin", ["open", "empty"])
def test_a_killed_sender_is_told_while_our_direction_is_open(
    tmp_path: Path, stdin: str
) -> None:
    path = tmp_path / "x.sock"
    read_end, write_end = os.pipe()
    given = read_end if stdin == "open" else subprocess.DEVNULL

    with (
        listening(path, stdin=given, stdout=subprocess.DEVNULL) as listen,
        command("connect", f"ipc:{path}", stdin=subprocess.PIPE) as connect,
    ):
        assert connect.stdin is not None
        connect.stdin.write(bytes(100_000))
        connect.stdin.flush()
        wait_until(lambda: not path.exists(), "the accept")
        connect.send_signal(signal.SIGKILL)
        _, err = finish(listen, errno.ECONNRESET)

    assert "ECONNRESET" in err
    assert "killed" in err
    os.close(read_end)
    os.close(write_end)


def test_the_manual_says_when_a_death_cannot_be_known() -> None:
    with command("listen", "--help") as process:
        out, _ = finish(process)

    assert b"can't be known" in out


def test_a_deadline_ends_waiting_for_a_peer(tmp_path: Path) -> None:
    with listening(tmp_path / "x.sock", "--deadline", "0.05") as process:
        _, err = finish(process, errno.ETIMEDOUT)

    assert err == (
        "umbel listen: ETIMEDOUT: the deadline was reached: give a longer --deadline, "
        "or none to wait for ever\n"
    )
    assert not (tmp_path / "x.sock").exists()


def test_a_deadline_ends_an_exchange_with_a_silent_peer(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--deadline", "1") as process:
        client = umbel.ipc_connect(path)
        _, err = finish(process, errno.ETIMEDOUT)
        umbel.hclose(client)

    assert "ETIMEDOUT" in err


def test_connecting_to_nothing_says_what_to_do(tmp_path: Path) -> None:
    with command("connect", f"ipc:{tmp_path}/x.sock") as process:
        _, err = finish(process, errno.ENOENT)

    assert "ENOENT" in err
    assert "start the listener" in err


def test_a_backlog_may_be_huge(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--backlog", "99999999999999", "--echo") as process:
        with umbel.ipc_connect(path):
            pass
        finish(process)


@pytest.mark.parametrize("verb", ["listen", "connect", "top"])
def test_an_address_within_one_process_is_refused_at_once(verb: str) -> None:
    with command(verb, "mem://x") as process:
        _, err = finish(process, errno.ENOTSUP)

    assert err.startswith(f"umbel {verb}: ENOTSUP: mem://x is within one process")
    assert err.count("\n") == 1


@pytest.mark.parametrize("port", ["0", "00"])
@pytest.mark.parametrize("options", [(), ("--echo",), ("--keep",)], ids=repr)
def test_the_port_that_the_system_chose_is_told(
    options: tuple[str, ...], port: str
) -> None:
    with command("listen", f"tcp://127.0.0.1:{port}", *options) as process:
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        found = re.fullmatch(r"listening at (tcp://127\.0\.0\.1:[1-9]\d*)\n", said)
        assert found is not None, said
        with umbel.connect(found[1]) as client:
            umbel.bsend(client, b"hello")
            umbel.done(client)
            while umbel.receive(client, deadline=umbel.within(20)):
                pass


def test_over_tcp_where_nobody_knows_what_was_read_both_end_well() -> None:
    with command("listen", "tcp://127.0.0.1:0", stdin=subprocess.PIPE) as listen:
        assert listen.stdin is not None
        assert listen.stderr is not None
        with listen.stdin as there:
            there.write(b"and back")
        address = listen.stderr.readline().decode().split()[-1]
        with command("connect", address, stdin=subprocess.PIPE) as connect:
            came, err = connect.communicate(b"there", timeout=40)
            assert (connect.returncode, came, err) == (0, b"and back", b"")
        assert listen.stdout is not None
        assert listen.stdout.read() == b"there"
        assert listen.wait(40) == 0


def test_an_unknown_scheme_names_what_is_installed() -> None:
    with command("connect", "quic://x") as process:
        _, err = finish(process, errno.EPROTONOSUPPORT)

    assert all(scheme in err for scheme in ("ipc", "mem", "tcp"))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("listen",),
        ("listen", "ipc:x", "--deadline", "-1"),
        ("listen", "ipc:x", "--backlog", "many"),
    ],
    ids=["none", "unknown", "no address", "deadline", "backlog"],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    with command(*arguments) as process:
        _, err = finish(process, 2)

    assert "usage: umbel" in err


@pytest.mark.parametrize("value", ["-1", "soon", "nan", ""])
def test_a_deadline_that_is_none_says_what_to_give(value: str) -> None:
    with command("connect", "ipc:x", "--deadline", value) as process:
        _, err = finish(process, 2)

    assert f"argument --deadline: {value!r}: give 0 or more seconds, or none" in err


def test_an_interval_that_is_none_says_what_to_give() -> None:
    with command("top", "ipc:x", "--interval", "-1") as process:
        _, err = finish(process, 2)

    assert err.endswith("argument --interval: '-1': give 0 or more seconds\n")


@pytest.mark.parametrize("value", ["-1", "many", "1.5"])
def test_a_backlog_that_is_none_says_what_to_give(value: str) -> None:
    with command("listen", "ipc:x", "--backlog", value) as process:
        _, err = finish(process, 2)

    assert f"argument --backlog: {value!r}: give a number of connections" in err


@pytest.mark.parametrize("arguments", [(), ("listen",), ("connect",)], ids=repr)
def test_the_exit_statuses_stand_in_the_manual(arguments: tuple[str, ...]) -> None:
    with command(*arguments, "--help") as process:
        out, _ = finish(process)

    for words in ("0     all went well", "2     wrong usage", "128+n", "errno"):
        assert words in out.decode()


def test_the_manual_says_that_keep_serves_one_at_a_time() -> None:
    with command("listen", "--help") as process:
        out, _ = finish(process)

    assert "one client at a time" in " ".join(out.decode().split())


def test_the_version_is_printed() -> None:
    with command("--version") as process:
        out, _ = finish(process)

    assert out == b"umbel 0.1.0\n"


def test_echo_sends_back_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--echo") as process:
        with umbel.ipc_connect(path) as client:
            umbel.bsend(client, b"hello")
            assert umbel.brecv(client, 5) == b"hello"
        finish(process)


def test_echo_keep_serves_many_at_once_and_survives_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--echo", "--keep") as process:
        clients = [umbel.ipc_connect(path) for _ in range(5)]
        bad = umbel.ipc_connect(path)
        umbel.bsend(bad, b"never read")
        umbel.hclose(bad)
        for client in reversed(clients):
            umbel.bsend(client, b"hello")
            assert umbel.brecv(client, 5) == b"hello"
            umbel.close(client, umbel.within(20))
        process.send_signal(signal.SIGTERM)
        finish(process, 128 + signal.SIGTERM)

    assert not path.exists()


def test_echo_keep_waits_for_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    few = 'ulimit -n 12; exec "$@"'
    with listening(path, "--echo", "--keep", shell=few) as process:
        clients = [umbel.ipc_connect(path) for _ in range(12)]
        assert process.stderr is not None
        said = process.stderr.readline()
        assert b"accepting failed, and is tried again" in said
        for client in clients:
            umbel.bsend(client, b"hello")
            assert umbel.brecv(client, 5, umbel.within(20)) == b"hello"
            umbel.close(client, umbel.within(20))
        process.send_signal(signal.SIGTERM)
        finish(process, 128 + signal.SIGTERM)


@pytest.mark.parametrize("keep", [(), ("--keep",)], ids=["once", "keep"])
def test_an_output_that_is_full_ends_it(tmp_path: Path, keep: tuple[str, ...]) -> None:
    path = tmp_path / "x.sock"

    with listening(path, *keep, shell='exec "$@" >/dev/full') as process:
        client = umbel.ipc_connect(path)
        umbel.bsend(client, b"hello")
        _, err = finish(process, errno.ENOSPC)
        umbel.hclose(client)

    assert err.count("ENOSPC") == err.count("\n") == 1
    assert not path.exists()


def test_keep_goes_on_when_a_client_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--keep") as process:
        bad = socket.socket(socket.AF_UNIX)
        bad.connect(str(path))
        bad.close()
        with umbel.ipc_connect(path) as client:
            umbel.bsend(client, b"hello")
        process.send_signal(signal.SIGTERM)
        out, err = finish(process, 128 + signal.SIGTERM)

    assert out == b"hello"
    assert err.count("ECONNRESET") == err.count("\n") == 1


def test_a_signal_ends_keep_at_once_also_with_clients(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--keep", "--echo") as process:
        client = umbel.ipc_connect(path)
        umbel.bsend(client, b"hello")
        assert umbel.brecv(client, 5) == b"hello"
        process.send_signal(signal.SIGTERM)
        process.wait(5)
        umbel.hclose(client)

    assert process.returncode == 128 + signal.SIGTERM
    assert not path.exists()


def test_keep_serves_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--keep") as process:
        for word in (b"one ", b"two ", b"three"):
            with umbel.ipc_connect(path) as client:
                umbel.bsend(client, word)
        process.send_signal(signal.SIGINT)
        out, _ = finish(process, 128 + signal.SIGINT)

    assert out == b"one two three"
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_signal_ends_it_and_leaves_no_file(tmp_path: Path, number: int) -> None:
    path = tmp_path / "x.sock"

    with listening(path) as process:
        process.send_signal(number)
        _, err = finish(process, 128 + number)

    assert err == ""
    assert not path.exists()


#: Runs what follows with SIGHUP as it is by default, whatever we were started with.
HANGING_UP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "umbel", *sys.argv[1:]])
"""


def test_a_terminal_that_is_closed_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with subprocess.Popen(
        [sys.executable, "-c", HANGING_UP, "listen", f"ipc:{path}"],
        stdin=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: is_listening(path))
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 128 + signal.SIGHUP

    assert not path.exists()


def test_nor_is_its_status_another_one(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    ours, theirs = pty.openpty()
    taking = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"

    with subprocess.Popen(
        [sys.executable, "-c", taking + HANGING_UP, "listen", f"ipc:{path}"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        wait_until(lambda: is_listening(path))
        os.close(theirs)
        os.close(ours)  # the kernel sends SIGHUP, and nothing can be written any more
        _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (128 + signal.SIGHUP, b"")
    assert not path.exists()


def test_nohup_keeps_it_alive(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with subprocess.Popen(
        ["nohup", sys.executable, "-m", "umbel", "listen", f"ipc:{path}", "--echo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: is_listening(path))
        process.send_signal(signal.SIGHUP)
        with umbel.ipc_connect(path) as client:
            umbel.bsend(client, b"hello")
            assert umbel.brecv(client, 5) == b"hello"
        assert process.wait(20) == 0


def test_ctrl_c_while_it_starts_shows_no_traceback() -> None:
    # In the middle of `import umbel`, which is most of the start.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["umbel"].split(":")
    code = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "umbel._kernel.hub":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)
from {module} import {function}
sys.exit({function}())
"""

    with python(code) as process:
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (128 + signal.SIGINT, "", "")


def test_a_signal_in_the_middle_of_an_exchange_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    read_end, write_end = os.pipe()

    with listening(path, stdin=read_end) as process:
        client = umbel.ipc_connect(path)
        umbel.bsend(client, b"hello")
        assert process.stdout is not None
        assert process.stdout.read(5) == b"hello"
        process.send_signal(signal.SIGTERM)
        _, err = finish(process, 128 + signal.SIGTERM)
        umbel.hclose(client)

    assert err == ""
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("keep", [(), ("--keep",)], ids=["once", "keep"])
def test_an_output_that_nobody_reads_is_an_error_not_a_hang(
    tmp_path: Path, keep: tuple[str, ...]
) -> None:
    path = tmp_path / "x.sock"
    read_end, write_end = os.pipe()
    os.close(read_end)

    with listening(path, *keep, stdout=write_end) as process:
        os.close(write_end)
        client = umbel.ipc_connect(path)
        umbel.bsend(client, b"into the void")
        _, err = finish(process, errno.EPIPE)
        umbel.hclose(client)

    assert "EPIPE" in err


def test_without_standard_error_all_works_and_nothing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with listening(path, shell='exec "$@" 2>&-') as process:
        with umbel.ipc_connect(path) as client:
            umbel.bsend(client, b"hello")
        assert finish(process) == (b"hello", "")
    with command("connect", f"ipc:{path}", shell='exec "$@" 2>&-') as process:
        assert finish(process, errno.ENOENT) == (b"", "")


@pytest.mark.parametrize("verb", ["listen", "connect"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("<&-", "standard input is closed"),
        (">&-", "standard output is closed"),
        ("0>/dev/null", "standard input is not for reading"),  # as nohup gives it
        ("1</dev/null", "standard output is not for writing"),
    ],
)
def test_useless_input_or_output_is_refused_before_there_is_a_connection(
    tmp_path: Path, verb: str, given: str, said: str
) -> None:
    with (
        umbel.ipc_listen(tmp_path / "x.sock") as listener,
        command(verb, f"ipc:{tmp_path}/x.sock", shell=f'exec "$@" {given}') as process,
    ):
        out, err = finish(process, errno.EBADF)
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, 0)

    assert out == b""
    assert err.startswith(f"umbel {verb}: EBADF: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("given", ["<&- >&- 2>&-", "0>/dev/null 1</dev/null"])
def test_echo_needs_neither_input_nor_output(tmp_path: Path, given: str) -> None:
    path = tmp_path / "x.sock"

    with listening(path, "--echo", shell=f'exec "$@" {given}') as process:
        with umbel.ipc_connect(path) as client:
            umbel.bsend(client, b"hello")
            assert umbel.brecv(client, 5) == b"hello"
        finish(process)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("transports",),
        ("check", "mem", "--only", "1", "--driver", "threads", "--json"),
    ],
    ids=["version", "transports", "check"],
)
def test_what_can_not_be_printed_is_one_line_and_the_errno(
    arguments: tuple[str, ...],
) -> None:
    for shell, number in ((">&-", errno.EBADF), (">/dev/full", errno.ENOSPC)):
        with command(*arguments, shell=f'exec "$@" {shell}') as process:
            _, err = finish(process, number)

        assert err.startswith("umbel")
        assert errno.errorcode[number] in err
        assert err.count("\n") == 1


def test_transports_lists_them_with_distribution_and_state() -> None:
    with command("transports", UMBEL_DISABLE="mem") as process:
        out, _ = finish(process)

    lines = [line.split() for line in out.decode().splitlines()]
    assert ["ipc", "umbel", "0.1.0", "loaded"] in lines
    assert ["mem", "umbel", "0.1.0", "blocked"] in lines


def bring(folder: Path, entry: str, code: str = "") -> str:
    """Make a distribution whose module is `brought`; give the path that has it."""
    record = folder / "bad-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(f"[umbel.transports.v1]\n{entry}\n")
    (folder / "brought.py").write_text(code)
    return os.pathsep.join([str(folder), *sys.path])


def test_transports_tells_why_one_failed(tmp_path: Path) -> None:
    path = bring(tmp_path, "bad = nothing:x")

    with command("transports", PYTHONPATH=path) as process:
        out, _ = finish(process)

    assert re.search(r"bad +bad 1\.0 +failed: .*nothing", out.decode())


def test_a_signal_ends_the_list_of_transports(tmp_path: Path) -> None:
    code = "import os, time\nos.kill(os.getpid(), 15)\ntime.sleep(30)"
    path = bring(tmp_path, "slow = brought:x", code)

    with command("transports", PYTHONPATH=path) as process:
        process.wait(20)

    assert process.returncode == -signal.SIGTERM


def test_a_warning_that_is_an_error_is_one_line(tmp_path: Path) -> None:
    path = bring(tmp_path, "ipc = brought:x")
    what = "error::RuntimeWarning"

    with command("connect", "ipc:x", PYTHONPATH=path, PYTHONWARNINGS=what) as process:
        _, err = finish(process, 1)

    assert err.startswith("umbel connect: the built-in transport 'ipc' is used")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_what_is_carried(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs /proc")

    def peak(process: Command) -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1])

    with (
        listening(path, stdout=subprocess.DEVNULL) as listen,
        command("connect", f"ipc:{path}", stdin=subprocess.PIPE) as connect,
    ):
        assert connect.stdin is not None
        for _ in range(30):
            connect.stdin.write(bytes(1 << 20))
        before = peak(listen), peak(connect)
        for _ in range(300):
            connect.stdin.write(bytes(1 << 20))
        after = peak(listen), peak(connect)
        connect.stdin.close()
        assert connect.wait(40) == listen.wait(40) == 0

    assert max(after) - max(before) < 2000


# Its parts.


@pytest.fixture
def nothing() -> Iterator[int]:
    """Give the descriptor of an output that is no terminal."""
    with open(os.devnull, "wb") as file:
        yield file.fileno()


def test_a_peer_that_goes_long_after_its_end_is_told(nothing: int) -> None:
    stream, peer = umbel.ipc_pair()
    theirs, ours = os.pipe()
    sink, meter = Output(nothing), Meter(nothing)
    exchange = Exchange(stream, Input(theirs), sink, meter, umbel.within(20))
    running = umbel.go(exchange.run)
    umbel.done(peer)
    while not exchange.has_peer_ended:
        umbel.msleep(umbel.within(0.001))
    umbel.hclose(peer)

    with pytest.raises(BaseExceptionGroup) as caught:
        running.wait(umbel.within(20))

    sink.close()
    assert caught.group_contains(umbel.BrokenStreamError, match="killed")
    umbel.hclose(running)
    os.close(ours)
    os.close(theirs)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal(nothing: int) -> None:
    screen = Screen()
    meter = Meter(nothing, screen)
    meter.sent, meter.received = 1_500_000, 10

    showing = umbel.go(meter.show)
    umbel.msleep(umbel.within(0.3))
    umbel.hclose(showing)
    meter.finish()

    assert re.search(r"\r1\.5 MB sent, 10 B received, \S+ .?B/s in", screen.getvalue())
    assert screen.getvalue().endswith("\n")


def test_progress_is_not_shown_elsewhere(nothing: int) -> None:
    screen = io.StringIO()
    meter = Meter(nothing, screen)

    with umbel.go(meter.show):
        meter.finish()

    assert screen.getvalue() == ""


def test_progress_is_not_shown_where_what_the_peer_sends_is() -> None:
    screen = Screen()
    ours, theirs = pty.openpty()
    meter = Meter(theirs, screen)

    with umbel.go(meter.show):
        meter.finish()

    assert screen.getvalue() == ""
    os.close(ours)
    os.close(theirs)


def test_output_waits_for_a_slow_reader_without_holding_up_others() -> None:
    read_end, write_end = os.pipe()
    output = Output(write_end)
    read: list[bytes] = []

    def drain() -> None:
        while sum(map(len, read)) < 1_000_000:
            umbel.fdin(read_end)
            read.append(os.read(read_end, 10_000))

    with umbel.go(drain):
        output.write(bytes(1_000_000), -1)

    assert os.get_blocking(write_end)
    output.close()
    os.close(read_end)
    os.close(write_end)


def test_a_block_device_is_written_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is at hand: a file that says it is one. Opened anew, both begin at 0.
    monkeypatch.setattr(stat, "S_ISREG", stat.S_ISBLK)
    monkeypatch.setattr(stat, "S_ISBLK", lambda _: True)
    path = tmp_path / "device"
    with path.open("wb", buffering=0) as file:
        file.write(b"head ")
        with closing(Output(file.fileno())) as output:
            output.write(b"body", umbel.within(10))

    assert path.read_bytes() == b"head body"


def test_output_to_a_socket_works_too() -> None:
    a, b = socket.socketpair()
    with a, b:
        output = Output(a.fileno())
        output.write(b"hello", 0)
        output.close()

        assert b.recv(10) == b"hello"


@pytest.mark.slow
def test_input_that_others_share_is_waited_for_again(
    threads: ThreadPoolExecutor,
) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    fds = [os.dup(read_end) for _ in range(4)]

    def count(fd: int) -> int:
        source, buffer = Input(fd), memoryview(bytearray(1))
        return sum(iter(lambda: source.read_into(buffer, umbel.within(20)), 0))

    counts = [threads.submit(count, fd) for fd in fds]
    for _ in range(500):
        os.write(write_end, b"xx")
        umbel.msleep(umbel.now() + 1)  # or nobody would have to wait
    os.close(write_end)

    assert sum(future.result(20) for future in counts) == 1000
    for fd in (*fds, read_end):
        os.close(fd)


def test_input_from_a_terminal_ends_at_its_deadline() -> None:
    ours, theirs = pty.openpty()

    with pytest.raises(umbel.DeadlineError):
        Input(theirs).read_into(memoryview(bytearray(10)), 0)

    os.close(ours)
    os.close(theirs)


def test_a_terminal_that_is_gone_is_no_failure_of_the_transfer(nothing: int) -> None:
    class Gone(Screen):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "gone")

    meter = Meter(nothing, Gone())
    with umbel.go(meter.show):
        umbel.msleep(umbel.within(0.3))
    meter.finish()
