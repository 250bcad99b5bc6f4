"""Real servers, for as long as some tests need them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import PATIENCE, is_listening, wait_until

#: Where Debian keeps what is not for users to start.
POSTGRES_PLACES = "/usr/lib/postgresql"


def find_redis() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


def find_postgres() -> Path | None:
    """Find the folder with PostgreSQL's initdb, postgres and pg_isready."""
    found = shutil.which("initdb")
    places = sorted(Path(POSTGRES_PLACES).glob("*/bin"), reverse=True)
    folders = [Path(found).resolve().parent, *places] if found else places
    return next((place for place in folders if (place / "postgres").exists()), None)


@contextmanager
def redis_server(program: str) -> Iterator[Path]:
    """Run Redis, with nothing but a socket file, which is given."""
    with _folder(None) as folder:
        place = folder / "redis.sock"
        command = [program, "--port", "0", "--unixsocket", str(place)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
        with _running(command, folder, None, lambda: is_listening(place)):
            yield place


@contextmanager
def postgres_server(programs: Path) -> Iterator[Path]:
    """Run PostgreSQL with a fresh cluster of the user "umbel"; give its socket file."""
    user = _find_user() if os.getuid() == 0 else None  # it refuses to be root
    with _folder(user) as folder:
        data = folder / "data"
        command = [str(programs / "initdb"), "-D", str(data), "-U", "umbel"]
        command += ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            command, cwd=folder, user=user, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr

        command = [str(programs / "postgres"), "-D", str(data), "-k", str(folder)]
        command += ["-c", "listen_addresses=", "-c", "fsync=off"]

        def is_ready() -> bool:
            ask = [str(programs / "pg_isready"), "-q", "-h", str(folder)]
            return subprocess.run(ask).returncode == 0

        with _running(command, folder, user, is_ready):
            yield folder / ".s.PGSQL.5432"


def _find_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def _folder(user: str | None) -> Iterator[Path]:
    """Make a folder that a server's user can reach; pytest's own are for us alone."""
    folder = Path(tempfile.mkdtemp(prefix="umbel-service-"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(
    command: Sequence[str], folder: Path, user: str | None, is_ready: Callable[[], bool]
) -> Iterator[None]:
    log = folder / "log"
    if shutil.which("setpriv"):  # tests that are killed leave no server behind
        command = ["setpriv", "--pdeathsig", "INT", "--", *command]
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            command, cwd=folder, user=user, stdout=output, stderr=output
        ) as server,
    ):

        def has_begun() -> bool:
            assert server.poll() is None, log.read_text()
            return is_ready()

        try:
            wait_until(has_begun, f"the start of {command}")
            yield
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL: at once, in good order
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
