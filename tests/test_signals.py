"""Signals that end a program in good order."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

import umbel
from tests.support import python, run_python

SERVING = """
import sys
import umbel
umbel.exit_on_signal()
def serve(listener):
    for s in listener:
        umbel.hclose(s)
try:
    with umbel.ipc_listen(sys.argv[1]) as listener:
        with umbel.bundle() as b:
            b.go(serve, listener)
            print("ready", flush=True)
            if sys.argv[2] == "waits":
                umbel.msleep(-1)
            while True:
                umbel.yield_()
finally:
    print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("how", ["waits", "works"])
def test_a_signal_runs_all_that_cleans_up(
    tmp_path: Path, number: int, how: str
) -> None:
    path = tmp_path / "x.sock"

    with python(SERVING, str(path), how) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

    assert process.returncode == 128 + number
    assert (out, err) == ("cleaned up\n", "")
    assert not path.exists()


def test_a_forked_child_that_has_not_run_yet_is_ended_too() -> None:
    code = """
import os, signal
import umbel
umbel.exit_on_signal()
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGTERM)   # before its hub was ever used
    umbel.msleep(umbel.within(60))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM
"""
    run_python(code)


def test_it_is_for_the_main_thread() -> None:
    caught: list[Exception] = []

    def call() -> None:
        try:
            umbel.exit_on_signal(signal.SIGUSR1)
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

    assert len(caught) == 1
