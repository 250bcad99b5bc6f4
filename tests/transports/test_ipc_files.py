"""The file of a listening socket, looked at while it is made, replaced and removed."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import re
import socket
import stat
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import umbel
from tests.support import run_python


def just_before(
    monkeypatch: pytest.MonkeyPatch, name: str, look: Callable[[], object]
) -> None:
    """Have *look* called before each call of the function *name* of `os`."""
    call = getattr(os, name)

    def look_and_call(*arguments: object) -> object:
        look()
        return call(*arguments)

    monkeypatch.setattr(os, name, look_and_call)


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize("name", ["chmod", "chown"])
def test_nobody_can_connect_before_mode_and_group_are_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, takeover: bool
) -> None:
    told: list[int] = []

    def connect() -> None:
        (path,) = tmp_path.iterdir()
        with socket.socket(socket.AF_UNIX) as early:
            told.append(early.connect_ex(str(path)))

    just_before(monkeypatch, name, connect)
    listener = umbel.listen(
        f"ipc:{tmp_path}/x.sock", takeover=takeover, mode=0o600, group=os.getgid()
    )
    umbel.hclose(listener)

    assert told == [errno.ECONNREFUSED]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["lstat", "chmod"])
def test_a_takeover_waits_while_a_file_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
    name: str,
    fails: bool,
) -> None:
    address = f"ipc:{tmp_path}/x.sock"
    honest = getattr(os, name)
    others: list[Future[umbel.ListenerHandle]] = []

    def take_over() -> umbel.ListenerHandle:
        return umbel.listen(address, takeover=True, mode=0o640)

    def begin() -> None:
        monkeypatch.setattr(os, name, honest)
        others.append(threads.submit(take_over))
        with pytest.raises(TimeoutError):
            others[0].result(0.1)
        if fails:
            raise PermissionError

    just_before(monkeypatch, name, begin)
    try:
        umbel.hclose(umbel.listen(address, mode=0o600))
    except PermissionError:
        assert fails
    other = others[0].result()

    # It has neither gone with ours, nor got the mode of ours.
    assert stat.S_IMODE(os.stat(tmp_path / "x.sock").st_mode) == 0o640
    umbel.hclose(umbel.connect(address))
    umbel.hclose(other)
    assert not list(tmp_path.iterdir())


def test_a_group_is_looked_up_before_there_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(name: str) -> None:
        assert not list(tmp_path.iterdir())
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", look_up)
    with pytest.raises(OSError, match="no group"):
        umbel.listen(f"ipc:{tmp_path}/x.sock", group="slow")


def test_a_stale_file_is_replaced_under_the_folders_lock(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    before = path.lstat()
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)

    listening = threads.submit(umbel.ipc_listen, path)
    with pytest.raises(TimeoutError):
        listening.result(0.1)
    now = path.lstat()
    os.close(folder)
    umbel.hclose(listening.result())

    assert os.path.samestat(before, now)


def test_a_takeover_removes_what_others_that_were_killed_have_left(
    tmp_path: Path,
) -> None:
    left, live, other = (tmp_path / name for name in (".77-ab", ".77-cd", ".77-ef"))
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left))
    other.touch()
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(live))  # it does not listen yet
        with umbel.listen(f"ipc:{tmp_path}/x.sock", takeover=True):
            found = sorted(path.name for path in tmp_path.iterdir())

    assert found == [".77-cd", ".77-ef", "x.sock"]


@pytest.mark.parametrize("takeover", [False, True])
def test_a_path_with_a_nul_is_einval(takeover: bool) -> None:
    with pytest.raises(OSError, match="NUL") as caught:
        umbel.listen(umbel.Address("ipc", "x\0.sock"), takeover=takeover)
    assert caught.value.errno == errno.EINVAL


def test_a_takeover_replaces_no_file_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sock"
    old = umbel.ipc_listen(path)

    def replace() -> None:
        path.unlink()
        path.write_text("precious")

    just_before(monkeypatch, "chmod", replace)
    with pytest.raises(OSError, match="no socket"):
        umbel.listen(f"ipc:{path}", takeover=True, mode=0o600)
    umbel.hclose(old)

    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["x.sock"]  # nothing is left beside it


def test_a_forked_child_that_closes_its_listener_leaves_the_file(
    tmp_path: Path,
) -> None:
    code = """
import os, sys
import umbel
listener = umbel.ipc_listen(sys.argv[1])
child = os.fork()
if not child:
    umbel.hclose(listener)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(os.path.exists(sys.argv[1]))
umbel.hclose(listener)
"""
    assert run_python(code, str(tmp_path / "x.sock")) == "True\n"


@pytest.mark.parametrize("takeover", [False, True])
def test_a_listener_that_is_interrupted_as_it_is_made_leaves_no_file(
    takeover: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("umbel_transports.ipc.IpcListener.__init__", interrupt)

    with pytest.raises(KeyboardInterrupt):
        umbel.listen(f"ipc:{tmp_path}/x.sock", takeover=takeover)

    assert not list(tmp_path.iterdir())


FOREIGN = """if True:
    import os, socket, sys, tempfile
    import umbel
    umbel.hclose(umbel.listen("ipc:@load"))
    mode, takeover = int(sys.argv[1], 8), sys.argv[2] == "True"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        path = folder + "/x.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        os.chmod(path, mode)
        pid = os.fork()
        if not pid:
            os.setuid(65534)
            try:
                umbel.listen("ipc:" + path, takeover=takeover)
            except OSError as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(os.listdir(folder))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("mode", "takeover", "words"),
    [
        ("0755", False, "x.sock is there already, and we have no permission to see"),
        ("0777", False, "x.sock: the system forbids it"),
        ("0777", True, "x.sock: the system forbids it"),
    ],
    ids=["not to be tried", "not to be removed", "not to be taken over"],
)
def test_a_stale_file_of_another_user_is_told_from_a_live_listeners(
    mode: str, takeover: bool, words: str
) -> None:
    out = run_python(FOREIGN, mode, str(takeover))

    assert words in out
    assert "live process" not in out
    assert out.endswith("['x.sock']\n")


def test_who_holds_a_name_is_named_though_it_is_not_to_be_tried() -> None:
    code = """if True:
        import os, tempfile
        import umbel
        umbel.hclose(umbel.listen("ipc:@load"))
        if os.getuid() == 0:
            os.setuid(65534)
        with tempfile.TemporaryDirectory() as folder:
            with umbel.listen(f"ipc:{folder}/x.sock", mode=0):
                try:
                    umbel.listen(f"ipc:{folder}/x.sock")
                except OSError as error:
                    print(error, os.getpid())
        """

    assert re.search(r"in use by the live process (\d+): .* \1\n", run_python(code))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_group_that_one_is_not_in_is_eperm_and_leaves_no_file() -> None:
    code = """if True:
        import errno, os, tempfile
        import umbel
        umbel.hclose(umbel.listen("ipc:@load"))
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            pid = os.fork()
            if not pid:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                try:
                    umbel.listen(f"ipc:{folder}/x.sock", group=0)
                except OSError as error:
                    print(errno.errorcode[error.errno], error, flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(os.listdir(folder))
        """

    out = run_python(code)

    assert out.startswith("EPERM")
    assert "x.sock: group=0: you are not in that group" in out
    assert out.endswith("[]\n")


def test_a_child_forked_while_the_folder_is_locked_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, its = os.pipe()
    children: list[int] = []

    def fork() -> None:
        if not children:
            children.append(os.fork())
            if not children[0]:
                os.close(its)
                os.read(ends, 1)  # until the test has ended
                os._exit(0)

    just_before(monkeypatch, "chmod", fork)
    listener = umbel.listen(f"ipc:{tmp_path}/x.sock", mode=0o600)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        umbel.hclose(listener)
        for descriptor in (folder, ends, its):
            os.close(descriptor)
        os.waitpid(children[0], 0)


def test_a_file_system_without_locks_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with umbel.listen(f"ipc:{tmp_path}/x.sock") as listener:
        umbel.hclose(umbel.connect(listener.address))

    assert not list(tmp_path.iterdir())


def test_a_fifo_in_place_of_a_folder_is_enotdir_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotADirectoryError):
        umbel.listen(f"ipc:{tmp_path}/fifo/x.sock")

    (tmp_path / "folder").mkdir()
    listener = umbel.listen(f"ipc:{tmp_path}/folder/x.sock")
    os.rename(tmp_path / "folder", tmp_path / "moved")
    os.mkfifo(tmp_path / "folder")
    umbel.close(listener)  # it would wait for the other end of the fifo


@pytest.mark.parametrize("what", ["symlink", "hard link"])
@pytest.mark.parametrize("option", ["mode", "group"])
def test_mode_and_group_are_given_to_no_other_file(
    option: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    honest = os.lstat

    def look(name: bytes) -> os.stat_result:
        monkeypatch.undo()
        if what == "hard link":
            swap(name, os.link)
            return honest(name)
        found = honest(name)
        swap(name, os.symlink)
        return found

    def swap(name: bytes, link: Callable[[bytes, bytes], None]) -> None:
        os.unlink(name)
        link(os.fsencode(secret), name)

    monkeypatch.setattr("umbel_transports._socket_file.os.lstat", look)

    value = {"mode": 0o666, "group": os.getgid()}[option]
    with pytest.raises(OSError, match="replaced the socket file") as caught:
        umbel.listen(f"ipc:{tmp_path}/x.sock", **{option: value})

    assert caught.value.errno == errno.EADDRINUSE
    assert secret.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_right_after_a_takeover_is_told_and_leaves_no_dead_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = os.rename

    def move(old: str, new: str) -> None:
        honest(old, new)
        raise KeyboardInterrupt

    with umbel.listen(f"ipc:{tmp_path}/x.sock"):
        monkeypatch.setattr("umbel_transports._socket_file.os.rename", move)
        with pytest.raises(KeyboardInterrupt):
            umbel.listen(f"ipc:{tmp_path}/x.sock", takeover=True)

    assert os.listdir(tmp_path) == []
