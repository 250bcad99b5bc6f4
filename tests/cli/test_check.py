"""`umbel check`, and the kit under pytest: as the author of a transport runs them."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import wait_until
from umbel.testing.conformance import BEHAVIOURS, DRIVERS, ELSEWHERE

#: Two of the drivers, which can be had everywhere.
TWO = ("threads", "coroutines")
BY_TWO = ("--driver", "threads", "--driver", "coroutines")
#: A module and its entry point, as an installed distribution has them: a transport
#: that is sound but for one thing.
BROKEN = """
from umbel.spi import Traits, hookimpl
from umbel_transports.mem import MemTransport

class Forgetful(MemTransport):
    @hookimpl.traits
    def traits(self):
        return Traits("forgetful://{name}", shows_abort=True)

transport = Forgetful()
"""


def install(
    folder: Path, scheme: str = "forgetful", name: str = "forgetful", code: str = BROKEN
) -> None:
    """Put a distribution that brings a transport into *folder*."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}_transport-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}-transport\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        f"[umbel.transports.v1]\n{scheme} = {name}:transport\n"
    )


def run(
    *command: str, folder: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", *command],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path or ""), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
    )


def check(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run("umbel", "check", *arguments, folder=folder, path=folder)


# The command.


def test_what_a_loop_opens_for_itself_is_not_laid_to_the_transport(
    tmp_path: Path,
) -> None:
    # As trio's import of ctypes does where libffi keeps a descriptor of its own.
    (tmp_path / "ctypes.py").write_text(
        "import os, sys\n"
        "os.open(os.devnull, os.O_RDONLY)\n"
        "sys.path.remove(os.path.dirname(__file__))\n"
        "del sys.modules['ctypes']\n"
        "import ctypes\n"
    )

    done = check("mem", "--driver", "trio", "--only", "1", folder=tmp_path)

    assert "1 passed, 0 failed" in done.stdout


def test_a_transport_that_passes_gives_a_report_and_status_0(tmp_path: Path) -> None:
    done = check("mem", *BY_TWO, "--only", "1", "14", "35", "50", folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^ *(\d+)  (\w*) +(\S+)", done.stdout, re.MULTILINE) == [
        *(("1", driver, "ok") for driver in TWO),
        *(("14", driver, "ok") for driver in TWO),
        ("35", "", "-"),
        ("50", "threads", "-"),
        ("50", "coroutines", "ok"),
    ]
    assert BEHAVIOURS[14].title in done.stdout
    assert ELSEWHERE[35] in done.stdout


def test_the_report_tells_what_was_tried_where_and_what_it_declares(
    tmp_path: Path,
) -> None:
    report = check("mem", *BY_TWO, "--only", "1", folder=tmp_path).stdout

    *_, declared, last = report.splitlines()
    assert "umbel_listen" in declared
    assert "DescriptorPassing, Fileno" in declared
    assert "half_close" in declared
    assert "shows_abort" not in declared
    assert last.startswith("mem of umbel 0.1.0: 2 passed, 0 failed, 0 skipped")
    assert "python 3" in last
    assert os.uname().release in last


def test_a_transport_that_fails_gives_status_1_and_names_the_behaviour(
    tmp_path: Path,
) -> None:
    install(tmp_path)

    done = check("forgetful", *BY_TWO, "--only", "1", "37", folder=tmp_path)

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count(f"37  threads     FAILED  {BEHAVIOURS[37].title}") == 1
    assert "declared to see none" in done.stdout
    assert "forgetful of forgetful-transport 1.0: 2 passed, 2 failed" in done.stdout


def test_json_gives_one_result_for_each_behaviour_and_driver(tmp_path: Path) -> None:
    install(tmp_path)

    options = (*BY_TWO, "--only", "1", "37", "50", "--json")
    done = check("forgetful", *options, folder=tmp_path)

    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["scheme"] == "forgetful"
    assert report["source"] == "forgetful-transport 1.0"
    assert report["passed"] is False
    assert {"umbel", "python", "system"} <= report.keys()
    assert report["declared"]["shows_abort"] is True
    assert [(b["number"], b["driver"], b["state"]) for b in report["behaviours"]] == [
        *((1, driver, "passed") for driver in TWO),
        *((37, driver, "failed") for driver in TWO),
        (50, "threads", "skipped"),
        (50, "coroutines", "passed"),
    ]
    for result in report["behaviours"]:
        assert result["title"] == BEHAVIOURS[result["number"]].title
        assert bool(result["reason"]) == (result["state"] != "passed")
        assert result["seconds"] >= 0


def test_all_behaviours_are_tried_unless_told_otherwise(tmp_path: Path) -> None:
    # Those of one driver, since those of all are in tests/kit/test_kit.py.
    done = check("mem", "--driver", "coroutines", "--json", folder=tmp_path)

    results = json.loads(done.stdout)["behaviours"]
    assert [result["number"] for result in results] == list(range(1, 82))
    assert done.returncode == 0, done.stdout
    assert sum(result["seconds"] for result in results) < 30


def test_all_drivers_are_tried_unless_told_otherwise(tmp_path: Path) -> None:
    done = check("mem", "--only", "1", "--json", folder=tmp_path)

    results = json.loads(done.stdout)["behaviours"]
    assert [result["driver"] for result in results] == list(DRIVERS)


def test_a_template_says_where_to_listen(tmp_path: Path) -> None:
    template = "ipc:{folder}/here-{name}"

    done = check(template, "--only", "67", "76", folder=tmp_path)

    assert done.returncode == 0, done.stdout


def test_a_template_with_one_name_is_in_a_new_folder_each_time(tmp_path: Path) -> None:
    of_names = ("--only", "43", "50", "53", "67", "71")

    done = check("ipc:{folder}/x.sock", *of_names, folder=tmp_path)

    assert done.returncode == 0, done.stdout


def test_an_address_outside_of_folders_is_not_tried_as_a_file(tmp_path: Path) -> None:
    of_files = ("--driver", "coroutines", "--only", "71", "72", "76", "79")

    done = check("ipc:@{name}", *of_files, folder=tmp_path)

    assert "2 passed, 0 failed, 2 skipped" in done.stdout


def test_a_template_that_can_not_be_used_fails_the_behaviours(tmp_path: Path) -> None:
    done = check("ipc:/nowhere/at/all/{name}", "--only", "67", folder=tmp_path)

    assert done.returncode == 1
    assert "/nowhere/at/all" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "name", "message"),
    [
        (["nothing"], "EPROTONOSUPPORT", "no transport for 'nothing' is installed"),
        (
            ["mem", "--only", "99", "1"],
            "EINVAL",
            "no behaviour has the number 99: they are 1 to 81",
        ),
        (
            ["mem", "--driver", "smoke", "--driver", "trio"],
            "EINVAL",
            "no driver is called smoke: there are threads, coroutines, asyncio, trio",
        ),
        (["mem", "--driver", ""], "EINVAL", "no driver is called '': there are"),
    ],
    ids=["scheme", "number", "driver", "empty"],
)
def test_what_does_not_exist_is_one_line_and_the_errno(
    tmp_path: Path, arguments: list[str], name: str, message: str
) -> None:
    done = check(*arguments, folder=tmp_path)

    assert done.returncode not in (0, 1)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"umbel check: {name}" in done.stderr
    assert message in done.stderr


#: Another ipc, whose forked children never connect: they say so, and hang.
STUCK = """
import os, time
from pathlib import Path
from umbel.spi import hookimpl
from umbel_transports.ipc import IpcTransport

HOME = os.getpid()

class Stuck(IpcTransport):
    @hookimpl.connect
    def connect(self, context):
        if os.getpid() != HOME:
            Path(os.environ["HERE"]).touch()
            time.sleep(60)
        return super().connect(context)

transport = Stuck()
"""


def is_running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_signal_ends_it_at_once_and_leaves_nothing_behind(
    tmp_path: Path, number: int
) -> None:
    install(tmp_path, "ipc", "stuck", STUCK)
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    temporary.mkdir()

    with subprocess.Popen(
        [sys.executable, "-m", "umbel", "check", "ipc", *BY_TWO, "--only", "75"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "UMBEL_PREFER": "ipc=stuck-transport",
            "TMPDIR": str(temporary),
            "HERE": str(here),
        },
        start_new_session=True,
    ) as process:
        wait_until(here.exists, "the child")
        process.send_signal(number)
        _, err = process.communicate(timeout=5)  # its accept waits for ten

    assert (process.returncode, err) == (128 + number, b"")
    assert os.listdir(temporary) == []
    wait_until(lambda: not is_running(process.pid), "the end of its child")


def test_what_there_is_no_time_for_is_told_as_not_tried(tmp_path: Path) -> None:
    options = (*BY_TWO, "--only", "1", "50", "--limit", "1e-9")

    done = check("mem", *options, folder=tmp_path)
    as_json = check("mem", *options, "--json", folder=tmp_path)

    assert (done.returncode, done.stderr) == (1, "")
    assert f"  1  threads     ?       {BEHAVIOURS[1].title}" in done.stdout
    assert "FAILED" not in done.stdout
    *_, counts, last = done.stdout.splitlines()
    assert "0 passed, 0 failed, 1 skipped, 3 not tried" in counts
    assert last == (
        "NOT COMPLETE: 3 were not tried within 1e-09 s; `--limit SECONDS` allows more, "
        "0 any time"
    )
    report = json.loads(as_json.stdout)
    assert as_json.returncode == 1
    assert report["passed"] is False
    assert [b["state"] for b in report["behaviours"]].count("not tried") == 3


#: An abort that never returns, as one that waits for a lock of its own.
ENDLESS = """
import socket, threading
from umbel.spi import LOCAL_CAPABILITIES, SocketStream, Traits, hookimpl

class Stuck(SocketStream):
    def abort(self):
        threading.Event().wait()

class Sticking:
    @hookimpl.pair
    def pair(self, context):
        left, right = socket.socketpair()
        return Stuck(left), Stuck(right)

    @hookimpl.traits
    def traits(self):
        return Traits(address="", capabilities=LOCAL_CAPABILITIES)

transport = Sticking()
"""


@pytest.mark.slow
def test_it_ends_though_a_transport_never_does(tmp_path: Path) -> None:
    install(tmp_path, "stuck", "stuck", ENDLESS)

    found = check("stuck", "--limit", "0.1", "--only", "1", "2", folder=tmp_path)

    assert found.returncode == 1
    assert "NOT COMPLETE" in found.stdout


def test_a_limit_can_be_lifted(tmp_path: Path) -> None:
    done = check("mem", *BY_TWO, "--only", "1", "--limit", "0", folder=tmp_path)

    assert done.returncode == 0
    assert "not tried" not in done.stdout


#: What the hook `traits` gives, and what is said of it.
BAD_TRAITS = {
    "1 / 0": "failed: ZeroDivisionError: division by zero",
    "None": "gave None, where Traits must come",
    "('forgetful:{name}',)": "gave a tuple of 1, where Traits must come",
    "Traits('nonsense')": "the address 'nonsense', which can't be read",
    "Traits('mem:{name}')": "the address 'mem:{name}', which is of another scheme",
    "Traits(5)": "the address 5, which is no str",
    "Traits('forgetful:%zz')": "which can't be read",
    "Traits('forgetful:{name}', ['Fileno'])": "capabilities that are no set of classes",
    "Traits('forgetful:{name}', 5)": "capabilities that are no set of classes",
}


def install_with_traits(folder: Path, traits: str) -> None:
    install(folder)
    sound = 'Traits("forgetful://{name}", shows_abort=True)'
    assert sound in BROKEN
    (folder / "forgetful.py").write_text(BROKEN.replace(sound, traits))


@pytest.mark.parametrize("traits", BAD_TRAITS)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_traits_that_make_no_sense_are_one_line_that_names_the_hook(
    tmp_path: Path, traits: str, options: tuple[str, ...]
) -> None:
    install_with_traits(tmp_path, traits)

    done = check("forgetful", "--only", "1", *options, folder=tmp_path)

    assert done.returncode == errno.ELIBACC
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "umbel check: ELIBACC: the hook `traits`" in done.stderr
    assert "'forgetful' (forgetful-transport 1.0)" in done.stderr
    assert BAD_TRAITS[traits] in done.stderr


def test_an_address_of_ones_own_stands_for_one_that_makes_no_sense(
    tmp_path: Path,
) -> None:
    install_with_traits(tmp_path, "Traits('nonsense')")

    done = check("forgetful:{name}", *BY_TWO, "--only", "1", folder=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


# Under pytest, in a folder that has nothing to do with umbel.


def run_pytest(
    *arguments: str, folder: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    # To import hypothesis takes longer than most tests here.
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    return run("pytest", *options, *arguments, folder=folder, path=path)


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    last = done.stdout.rstrip().rsplit("\n", 1)[-1]
    return {state: int(count) for count, state in re.findall(r"(\d+) (\w+)", last)}


@pytest.mark.slow
def test_an_option_of_pytest_tries_all_behaviours(tmp_path: Path) -> None:
    # With one driver, since those of all are in tests/kit/test_kit.py.
    done = run_pytest("--umbel-transport=mem", "-k", "threads", folder=tmp_path)

    found = outcomes(done)
    assert done.returncode == 0, done.stdout
    assert found["passed"] + found["skipped"] == len(BEHAVIOURS)
    assert found["deselected"] == len(BEHAVIOURS) * (len(DRIVERS) - 1)
    assert found["passed"] > 4 * found["skipped"]


def test_behaviours_are_chosen_by_name_as_all_tests(tmp_path: Path) -> None:
    done = run_pytest(
        "--umbel-transport=mem", "-vv", "-k", "01 and threads", folder=tmp_path
    )

    assert outcomes(done) == {
        "passed": 1,
        "deselected": len(BEHAVIOURS) * len(DRIVERS) - 1,
    }
    assert "umbel::mem-01-threads PASSED" in done.stdout


def test_a_broken_transport_fails_those_tests_alone(tmp_path: Path) -> None:
    install(tmp_path)

    done = run_pytest(
        "--umbel-transport=forgetful",
        *("-k", "(01 or 37) and (threads or coroutines)"),
        folder=tmp_path,
        path=tmp_path,
    )

    assert done.returncode == 1
    assert "umbel::forgetful-37-threads - Failed: 37. the peer" in done.stdout
    assert outcomes(done)["failed"] == outcomes(done)["passed"] == len(TWO)
    assert "Traceback" not in done.stdout


def test_an_unknown_transport_is_told_once(tmp_path: Path) -> None:
    done = run_pytest("--umbel-transport=nothing", folder=tmp_path)

    assert done.returncode == 4  # wrong usage
    assert done.stderr.count("no transport for 'nothing' is installed") == 1


@pytest.mark.parametrize("traits", ["1 / 0", "Traits('nonsense')"])
def test_traits_that_make_no_sense_are_told_once(tmp_path: Path, traits: str) -> None:
    install_with_traits(tmp_path, traits)

    done = run_pytest("--umbel-transport=forgetful", folder=tmp_path, path=tmp_path)

    assert done.returncode == 4  # wrong usage
    assert done.stderr.count(BAD_TRAITS[traits]) == 1
    assert "INTERNALERROR" not in done.stdout


def test_the_fixture_tells_what_can_not_be_tried_without_a_traceback(
    tmp_path: Path,
) -> None:
    install_with_traits(tmp_path, "1 / 0")
    (tmp_path / "test_mine.py").write_text(
        """
def test_conformance(umbel_behaviour):
    umbel_behaviour("forgetful")
"""
    )

    done = run_pytest("-k", "01 and threads", folder=tmp_path, path=tmp_path)

    assert outcomes(done)["failed"] == 1
    assert BAD_TRAITS["1 / 0"] in done.stdout
    assert "Traceback" not in done.stdout
    assert "in traits" not in done.stdout


def test_the_fixture_tries_each_behaviour_on_a_transport_of_the_test(
    tmp_path: Path,
) -> None:
    (tmp_path / "forgetful.py").write_text(BROKEN)
    (tmp_path / "test_mine.py").write_text(
        """
from forgetful import transport
from umbel.testing import transport_at_hand

def test_conformance(umbel_behaviour):
    with transport_at_hand(transport, "mine"):
        umbel_behaviour("mine://{name}")

def test_of_something_else():
    pass
"""
    )

    wanted = "(01 or 37 or 50) and (threads or coroutines) or else"
    done = run_pytest("-k", wanted, folder=tmp_path, path=tmp_path)

    assert outcomes(done) == {
        "failed": 2,
        "passed": 4,
        "skipped": 1,
        "deselected": len(BEHAVIOURS) * len(DRIVERS) - 6,
    }
    assert "test_mine.py::test_conformance[37-coroutines]" in done.stdout


def test_pytest_without_the_option_has_nothing_of_the_kit(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        """
import sys

def test_nothing_was_imported():
    assert "umbel.testing.conformance" not in sys.modules
"""
    )

    assert outcomes(run_pytest(folder=tmp_path)) == {"passed": 1}


def test_a_program_may_use_umbel_before_and_after_a_check(tmp_path: Path) -> None:
    code = """
import umbel
from umbel.testing.conformance import check
left, right = umbel.pair()
assert not check("mem", [1, 78], ["threads"]).failed
umbel.bsend(left, b"x")
assert umbel.brecv(right, 1, umbel.within(5)) == b"x"
umbel.hclose(left)
umbel.hclose(right)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, check=True, timeout=50, cwd=tmp_path)
