"""One error for each misfortune, with distributions that are really installed.

They are all installed side by side, so that each test shows as well that none of them
breaks another. Each prints its name when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import umbel
from tests.distributions import PLUGINS, Distribution, install, make_wheel
from tests.support import run_python
from umbel.plugins.registry import add_transport

HOOKS = "from umbel.spi import SocketStream, hookimpl\nimport socket, sys\n"
GOOD = """
class Transport:
    @hookimpl
    def umbel_pair(self, context):
        a, b = socket.socketpair()
        return SocketStream(a), SocketStream(b)
transport = Transport()
"""
WATCHING = """
class Watching:
    @hookimpl(wrapper=True)
    def umbel_pair(self, context):
        print("seen", context.scheme)
        outcome = yield
        return outcome
transport = Watching()
"""


def plugin_with(hook: str, line: str = "pass") -> str:
    """Write a plugin that has one hook."""
    return f"""
class Plugin:
    {hook}
        {line}
transport = Plugin()
"""


#: Transports whose scheme is the distribution's name: code, and what the error says.
BROKEN = {
    "needs-more": ("import nothing_of_that_name", "nothing_of_that_name"),
    "raises": ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
    "exits": ("sys.exit('goodbye')", "SystemExit: goodbye"),
    "bad-syntax": ("def (", "SyntaxError"),
    "no-name": ("other = 5", "no attribute 'transport'"),
    "is-none": ("transport = None", "must be an object with hooks, and is nothing"),
    "is-a-class": (
        GOOD.replace("= Transport()", "= Transport"),
        "is a class: make an object of it",
    ),
    "no-hooks": (
        "transport = object()",
        "has none of the hooks connect, listen, pair",
    ),
    "only-closes": (
        plugin_with("@hookimpl.close\n    def close(self, context):"),
        "has none of the hooks",
    ),
    "mistyped": (
        plugin_with("@hookimpl\n    def umbel_lisen(self, context):"),
        "umbel_lisen",
    ),
    "parameter": (
        plugin_with("@hookimpl\n    def umbel_listen(self, address):"),
        "address",
    ),
    "two-parameters": (
        plugin_with("@hookimpl.connect\n    def connect(self, context, timeout):"),
        "timeout",
    ),
    "no-parameter": (
        plugin_with("@hookimpl.connect\n    def connect(self):"),
        "umbel_connect must take `context`",
    ),
    "keyword-only": (
        plugin_with("@hookimpl.listen\n    def listen(self, *, context):"),
        "umbel_listen must take `context`",
    ),
    "no-self": (
        plugin_with("@hookimpl.connect\n    def connect():"),
        "umbel_connect must take `context`",
    ),
    "traits-of-two": (
        plugin_with("@hookimpl.traits\n    def traits(self, *, where):"),
        "umbel_traits must take nothing",
    ),
    "wraps": (WATCHING, "it wraps umbel_pair: that is for observers"),
    "wraps-too": (
        GOOD.replace(
            "transport =",
            "    @hookimpl(wrapper=True)\n"
            "    def umbel_close(self, context):\n"
            "        return (yield)\n"
            "transport =",
        ),
        "it wraps umbel_close: that is for observers",
    ),
}

#: Observers, likewise.
BROKEN_PLUGINS = {
    "plugin-needs-more": ("import nothing_of_that_name", "nothing_of_that_name"),
    "plugin-exits": ("sys.exit('goodbye')", "SystemExit: goodbye"),
    "plugin-implements": (GOOD, "implements umbel_pair itself: an observer wraps"),
    "plugin-mistyped": (
        plugin_with("@hookimpl(wrapper=True)\n    def umbel_clos(self, c):", "yield"),
        "umbel_clos",
    ),
    "plugin-parameter": (
        plugin_with("@hookimpl(wrapper=True)\n    def umbel_pair(self, c):", "yield"),
        "hook 'umbel_pair'",
    ),
    "plugin-no-context": (
        plugin_with("@hookimpl.pair.wrapper\n    def pairing(self):", "yield"),
        "umbel_pair must take `context`",
    ),
    "plugin-start": (
        plugin_with("@hookimpl.start\n    def start(self, *, now):"),
        "umbel_start must take nothing",
    ),
    "plugin-class": (
        WATCHING.replace("= Watching()", "= Watching"),
        "is a class: make an object of it",
    ),
    "plugin-no-generator": (
        plugin_with("@hookimpl(wrapper=True)\n    def umbel_pair(self, context):"),
        "generator",
    ),
}

OTHERS = [
    Distribution("good-one", "good", GOOD),
    Distribution("slow-one", "slow", f"import time; time.sleep(0.1)\n{GOOD}"),
    Distribution("first-twin", "twin", GOOD),
    Distribution("second-twin", "twin", GOOD),
    Distribution("other-mem", "mem", GOOD),
    Distribution("broken-ipc", "ipc", "raise RuntimeError('broken')"),
    Distribution("from-tomorrow", "tomorrow", GOOD, "umbel.transports.v2"),
    Distribution("upper-case", "UPPER", GOOD),
    Distribution("under-score", "my_scheme", GOOD),
    Distribution("good-plugin", "good-plugin", WATCHING, PLUGINS),
    Distribution("plugin-of-tomorrow", "later", WATCHING, "umbel.plugins.v2"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install all of them, and give the folder where they are."""
    place = tmp_path_factory.mktemp("distributions")
    all_of_them = [
        *(Distribution(name, name, code) for name, (code, _) in BROKEN.items()),
        *(
            Distribution(name, name, code, PLUGINS)
            for name, (code, _) in BROKEN_PLUGINS.items()
        ),
        *OTHERS,
    ]
    wheels = []
    for found in all_of_them:
        code = f"print('imported {found.name}')\n{HOOKS}{found.code}"
        wheels.append(make_wheel(found._replace(code=code), place))
    install(wheels, place / "installed")
    return str(place / "installed")


def run(code: str, folder: str, **env: str) -> str:
    """Run *code*: `failing` shows an error, `use` tries a scheme, `gather` warnings."""
    start = """
import errno, umbel, warnings
def failing(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        told = str(error).replace("\\n", " ")
        print(errno.errorcode[error.errno], type(error).__name__, told)
        return
    print("no error")
def use(scheme):
    for end in umbel.pair(scheme):
        umbel.hclose(end)
def gather():
    gathered = []
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, category, *_: gathered.append(
        f"{category.__name__} {message}"
    )
    return gathered
"""
    return run_python(start + code, PYTHONPATH=folder, **env)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_transport_is_named_with_the_cause_whenever_it_is_used(
    folder: str, name: str
) -> None:
    code = f"""
for _ in range(2):
    failing(umbel.pair, "{name}")
use("good")
"""
    lines = run(code, folder).splitlines()

    errors = [line for line in lines if line.startswith("ELIBACC PluginError")]
    assert len(errors) == 2
    for error in errors:
        assert f"{name} 1.0" in error
        assert BROKEN[name][1] in error
    assert lines.count("imported good-one") == 1


@pytest.mark.parametrize(
    ("scheme", "name"), [("UPPER", "upper-case"), ("my_scheme", "under-score")]
)
def test_an_entry_point_whose_name_is_no_scheme_is_refused(
    folder: str, scheme: str, name: str
) -> None:
    code = f"""
failing(umbel.pair, "{scheme}")
failing(umbel.connect, "{scheme}:x")
"""
    pair, connect = run(code, folder).splitlines()

    assert pair.startswith("ELIBACC PluginError")
    for part in (f"'{scheme}'", f"{name} 1.0", "can't be a scheme"):
        assert part in pair
    assert connect.startswith("EINVAL")
    assert f"'{scheme}' can't be a scheme" in connect


def test_a_scheme_that_can_not_be_one_is_refused_without_a_distribution() -> None:
    with pytest.raises(umbel.PluginError, match="'No' of this program can't be"):
        add_transport(object(), "No")


@pytest.mark.parametrize(
    ("env", "states"),
    [
        (
            {},
            {"other-mem": "not used: umbel 0.1.0 is", "broken-ipc": "not used: umbel"},
        ),
        (
            {"UMBEL_PREFER": "mem=other-mem,ipc=broken-ipc,twin=first-twin"},
            {
                "other-mem": "loaded",
                "broken-ipc": "failed: ",
                "first-twin": "loaded",
                "second-twin": "not used: first-twin 1.0 is",
            },
        ),
        ({"UMBEL_DISABLE": "mem"}, {"other-mem": "blocked"}),
        ({}, {"first-twin": "failed: ", "second-twin": "failed: "}),
        ({}, {"upper-case": "failed: ", "under-score": "failed: "}),
    ],
)
def test_the_list_shows_which_of_two_is_used(
    folder: str, env: dict[str, str], states: dict[str, str]
) -> None:
    listed = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "umbel", "transports"],
        env={**os.environ, "PYTHONPATH": folder, **env},
        capture_output=True,
        text=True,
        timeout=30,
    )

    lines = listed.stdout.splitlines()
    for name, state in states.items():
        (line,) = [line for line in lines if line.split()[1:3] == [name, "1.0"]]
        assert line.split(f"{name} 1.0", 1)[1].strip().startswith(state)
    if "mem" in env.get("UMBEL_PREFER", ""):
        (line,) = [line for line in lines if line.split()[:2] == ["mem", "umbel"]]
        assert line.endswith("not used: other-mem 1.0 is")


def test_nothing_is_imported_that_is_not_used(folder: str) -> None:
    assert run("use('good')\nuse('good')", folder) == "imported good-one\n"


def test_all_are_listed_though_they_are_broken(folder: str) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "umbel", "transports"],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert listed.returncode == 0
    assert "Traceback" not in listed.stderr
    lines = listed.stdout.partition("SCHEME ")[2].splitlines()[1:]
    assert all(" 1.0  " in line or " 0.1.0  " in line for line in lines), lines
    for name in (*BROKEN, "first-twin", "second-twin", "other-mem"):
        assert f"{name} 1.0" in listed.stdout
    assert "no such luck" in listed.stdout


def test_two_distributions_with_one_scheme_are_named_and_not_imported(
    folder: str,
) -> None:
    out = run('failing(umbel.pair, "twin")\nuse("good")', folder)

    error, good = out.splitlines()
    assert error.startswith("EEXIST FileExistsError")
    assert "first-twin 1.0 and second-twin 1.0" in error
    assert "umbel.prefer" in error
    assert good == "imported good-one"


@pytest.mark.parametrize(
    ("call", "env"),
    [
        ("umbel.prefer('twin', 'Second_Twin')", {}),
        ("umbel.prefer('twin', 'second.twin')", {}),
        ("", {"UMBEL_PREFER": "mem=umbel, twin=second-twin"}),
    ],
    ids=["call", "dotted", "environment"],
)
def test_one_of_two_can_be_preferred(
    folder: str, call: str, env: dict[str, str]
) -> None:
    assert run(f"{call}\nuse('twin')", folder, **env) == "imported second-twin\n"


def test_a_built_in_wins_and_a_warning_names_the_other(folder: str) -> None:
    code = """
gathered = gather()
use("mem")
use("ipc")
print(*gathered, sep="\\n")
"""
    first, second = run(code, folder).splitlines()

    assert first.startswith("RuntimeWarning the built-in transport 'mem'")
    assert "other-mem 1.0" in first
    assert "broken-ipc 1.0" in second


def test_a_preferred_one_that_is_broken_is_not_replaced(folder: str) -> None:
    code = """
umbel.prefer("mem", "other-mem")
umbel.prefer("ipc", "broken-ipc")
use("mem")
failing(umbel.pair, "ipc")
umbel.prefer("twin", "third-twin")
failing(umbel.pair, "twin")
"""
    mem, _, ipc, twin = run(code, folder).splitlines()

    assert mem == "imported other-mem"
    assert ipc.startswith("ELIBACC PluginError")
    assert "broken-ipc 1.0" in ipc
    assert twin.startswith("EPROTONOSUPPORT UnknownTransportError")
    assert "first-twin 1.0, second-twin 1.0" in twin


def test_one_for_another_version_of_the_contract_is_never_imported(
    folder: str,
) -> None:
    out = run('failing(umbel.pair, "tomorrow")', folder)

    assert out.startswith("ELIBACC PluginError")
    assert "from-tomorrow 1.0 is for version 2" in out
    assert "imported" not in out


def test_an_unknown_scheme_names_the_installed_ones_that_are_most_alike(
    folder: str,
) -> None:
    out = run('failing(umbel.pair, "twins")', folder)

    assert out.startswith("EPROTONOSUPPORT UnknownTransportError")
    assert "there is twin, " in out
    assert "imported" not in out


@pytest.mark.parametrize(
    ("call", "env"),
    [
        ("umbel.block('raises')", {}),
        ("umbel.allow_only('good')", {}),
        ("", {"UMBEL_DISABLE": "raises"}),
        ("", {"UMBEL_ALLOW": "good"}),
    ],
    ids=["block", "allow_only", "UMBEL_DISABLE", "UMBEL_ALLOW"],
)
def test_a_blocked_one_is_enotsup_and_never_imported(
    folder: str, call: str, env: dict[str, str]
) -> None:
    out = run(f"{call}\nfailing(umbel.pair, 'raises')\nuse('good')", folder, **env)

    error, good = out.splitlines()
    assert error.startswith("ENOTSUP NotSupportedError")
    assert good == "imported good-one"


@pytest.mark.parametrize("scheme", ["slow", "no-hooks", "raises"])
def test_several_threads_at_once_get_the_same_answer(folder: str, scheme: str) -> None:
    code = f"""
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
barrier = Barrier(8)
def attempt(_):
    barrier.wait()
    try:
        use("{scheme}")
    except umbel.PluginError as error:
        return str(error)
with ThreadPoolExecutor(8) as pool:
    print(set(pool.map(attempt, range(8))))
"""
    *imports, answers = run(code, folder).splitlines()

    if scheme == "raises":
        assert len(imports) == 8  # tried again each time: it may have been mended
    else:
        assert len(imports) == 1
    assert (answers == "{None}") == (scheme == "slow")
    assert (f"of {scheme} 1.0" in answers) == (scheme != "slow")
    assert answers.count("Errno") <= 1


# Observers.


@pytest.mark.parametrize("name", BROKEN_PLUGINS)
def test_a_broken_plugin_is_named_with_the_cause_and_breaks_no_other(
    folder: str, name: str
) -> None:
    code = f"""
for _ in range(2):
    failing(umbel.load_plugins, "{name}")
umbel.load_plugins("good-plugin")
use("good")
"""
    lines = run(code, folder).splitlines()

    errors = [line for line in lines if line.startswith("ELIBACC PluginError")]
    assert len(errors) == 2
    for error in errors:
        assert f"{name} 1.0" in error
        assert BROKEN_PLUGINS[name][1] in error
    assert lines.count("seen good") == 1


def test_a_broken_plugin_that_the_environment_asks_for_is_told(folder: str) -> None:
    code = """
print("umbel is imported")
failing(umbel.pair, "good")
"""
    out = run(code, folder, UMBEL_PLUGINS="plugin-needs-more")

    lines = out.splitlines()
    assert lines[0] == "umbel is imported"
    assert lines[-1].startswith("ELIBACC PluginError")
    assert "plugin-needs-more 1.0" in lines[-1]


def test_a_plugin_for_another_version_is_never_imported(folder: str) -> None:
    out = run('failing(umbel.load_plugins, "later")', folder)

    assert "imported" not in out
    assert out.startswith(
        "ELIBACC PluginError [Errno 79] no plugin 'later' is installed"
    )


# Lists of entry points that no tool would write.


def write_list(folder: Path, name: str, lines: str) -> None:
    """Leave a list of entry points, and nothing else of its distribution."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[umbel.transports.v1]\n{lines}\n")


def test_what_is_left_of_a_distribution_is_told_by_its_folder(tmp_path: Path) -> None:
    write_list(tmp_path, "left", "left = nothing:there\nmem = nothing:there")
    code = """
failing(umbel.pair, "left")
umbel.prefer("mem", "own-mem")
failing(umbel.pair, "mem")
"""
    first, second = run(code, str(tmp_path)).splitlines()

    assert first.startswith("ELIBACC PluginError")
    assert f"an unknown distribution in {tmp_path}" in first
    assert second.startswith("EPROTONOSUPPORT")


def test_a_list_that_can_not_be_read_breaks_no_transport(tmp_path: Path) -> None:
    write_list(tmp_path, "torn", "torn = nothing:th\nno")
    write_list(tmp_path, "left", "left = nothing:there")
    code = """
gathered = gather()
use("mem")
failing(umbel.pair, "left")
failing(umbel.load_plugins, "nothing")
print(gathered[0])
"""
    left, plugin, told = run(code, str(tmp_path)).splitlines()

    assert left.startswith("ELIBACC PluginError")
    assert "trace" in plugin
    assert f"{tmp_path} can't be read" in told


def test_an_entry_point_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    write_list(tmp_path, "no-module", "no-module = !nonsense")
    write_list(tmp_path, "left", "left = nothing:there")
    code = """
gathered = gather()
failing(umbel.pair, "no-module")
failing(umbel.pair, "left")
print(*gathered)
"""
    senseless, left, told = run(code, str(tmp_path)).splitlines()

    assert left.startswith("ELIBACC PluginError")
    if sys.version_info < (3, 15):
        assert senseless.startswith("ELIBACC PluginError")
        assert "!nonsense" in senseless
    else:  # it is not even read
        assert senseless.startswith("EPROTONOSUPPORT")
        assert "!nonsense" in told


def test_an_umbel_without_metadata_says_what_it_lacks(tmp_path: Path) -> None:
    # As in an archive, or a program that was frozen.
    for name in ("umbel", "umbel_transports", "umbel_plugins", "greenlet", "pluggy"):
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        (tmp_path / name).symlink_to(Path(found.origin).parent)
    code = """
import umbel, umbel.cli
for call in (umbel.ipc_pair, lambda: umbel.load_plugins("trace")):
    try:
        call()
    except OSError as error:
        print(error)
print(umbel.cli.main(["--version"]))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    transport, plugin, *rest = done.stdout.splitlines()
    for line in (transport, plugin):
        assert "there is none; umbel's own are not found without its metadata" in line
        assert "brings" not in line
    assert (rest, done.stderr) == (["umbel unknown", "0"], "")
