"""The benchmarks run: each peer in each role, at a size that proves nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.dom.minidom
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.__main__ import main
from benchmarks.harness import peers_of, run_case
from benchmarks.model import SUBJECT, Case, Job, Peer, Result, Sample
from benchmarks.peers import PEERS, what_is_missing
from benchmarks.plot import svg
from benchmarks.report import table, to_json
from benchmarks.targets import targets
from benchmarks.workloads import WORKLOADS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processor clocks of other processes are Linux's"
)


def smallest(case: Case) -> Case:
    """Make *case* as small as it can be without being another one."""
    job = replace(
        case.job,
        size=min(case.job.size, 4096),
        total=min(case.job.total, 65536),
        count=min(case.job.count, 200),
    )
    connections, idle = min(case.connections, 3), min(case.idle, 3)
    return replace(
        case, job=job, connections=connections, idle=idle, seconds=0.0, warmup=0.0
    )


def roles() -> Iterator[tuple[Case, Peer]]:
    """Give each peer in each of its roles once, over each kind of address."""
    seen = set()
    for make in WORKLOADS.values():
        for case in make():
            for name in case.peers:
                peer, kind = PEERS[name], case.job.address
                key = name, case.job.role, kind
                does = case.job.role in peer.roles and (peer.has_tcp or kind != "tcp")
                if does and key not in seen:
                    seen.add(key)
                    yield smallest(case), peer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "peer"),
    [
        pytest.param(
            *(case, peer),
            id=f"{peer.name}-{case.job.role}-{case.job.address or 'inside'}",
        )
        for case, peer in roles()
    ],
)
def test_a_peer_does_its_job(case: Case, peer: Peer) -> None:
    if missing := what_is_missing(peer):
        pytest.skip(missing)

    sample = case.measure(case, peer)

    # Memory and imports may be had for nothing, when the sizes are this small; and the
    # clock of a process on another core may stand still for a whole tick.
    has_worked = sample.cost > 0 or sample.rate > 0
    assert has_worked or case.workload in {"memory", "start"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["echo", "sink", "source", "answer"])
def test_the_load_generator_works_without_a_compiler(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "program", lambda _name: None)
    workload = {"echo": "echo", "answer": "connection"}.get(mode, "bulk")
    case = next(case for case in WORKLOADS[workload]() if case.job.role == mode)

    assert case.measure(smallest(case), PEERS["epoll"]).cost > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_system_calls_of_an_echo_are_counted() -> None:
    case = replace(next(iter(WORKLOADS["calls"]())), seconds=0.2)
    try:
        sample = case.measure(case, PEERS["blocking"])
    except harness.FailedRunError as error:
        pytest.skip(f"strace is not allowed here: {error}")

    assert 1.9 < sample.cost < 2.5


def test_each_role_of_a_peer_is_asked_for_by_a_workload() -> None:
    asked = {(peer.name, case.job.role) for case, peer in roles()}

    assert asked == {
        (peer.name, role) for peer in PEERS.values() for role in peer.roles
    }


def test_a_case_has_the_subject_among_its_peers() -> None:
    for make in WORKLOADS.values():
        for case in make():
            assert case.peers[0] == SUBJECT, case.name


def test_only_the_peers_that_are_asked_for_run_and_the_subject() -> None:
    case = next(iter(WORKLOADS["echo"]()))

    assert [peer.name for peer in peers_of(case, ["epoll"])] == [SUBJECT, "epoll"]


def counting(costs: dict[str, float], order: list[str]) -> Case:
    def measure(_case: Case, peer: Peer) -> Sample:
        order.append(peer.name)
        if costs[peer.name] < 0:
            raise harness.FailedRunError("it fell over")
        return Sample(costs[peer.name], 1000.0)

    names = tuple(costs)
    return Case("echo", "64 connections, 64 bytes", Job("echo"), names, measure)


def test_rounds_go_forth_and_back() -> None:
    order: list[str] = []
    case = counting({"umbel": 1.0, "epoll": 2.0, "blocking": 3.0}, order)

    run_case(case, peers_of(case, None), 2, pytest.fail)

    assert order == ["umbel", "epoll", "blocking", "blocking", "epoll", "umbel"]


def test_a_peer_that_fails_is_left_out_and_told_of_once() -> None:
    order: list[str] = []
    told: list[str] = []
    case = counting({"umbel": 1.0, "epoll": -1.0}, order)

    result = run_case(case, peers_of(case, None), 3, told.append)

    assert set(result.samples) == {"umbel"}
    assert len(told) == 1
    assert "it fell over" in told[0]


def result_of(costs: dict[str, float]) -> Result:
    case = counting(costs, [])
    return run_case(case, peers_of(case, None), 3, pytest.fail)


def test_a_ratio_is_what_umbel_costs_as_a_multiple_of_a_peer() -> None:
    result = result_of({"umbel": 3.0, "epoll": 2.0})

    assert result.ratios("epoll") == [1.5, 1.5, 1.5]
    assert "1.50  (1.50 - 1.50)" in table(result)


@pytest.mark.parametrize(("cost", "verdict"), [(3.2, "ok"), (3.4, "missed")])
def test_a_target_is_held_against_what_was_measured(cost: float, verdict: str) -> None:
    found = targets([result_of({"umbel": cost, "epoll": 2.0})])

    assert {target.what: target.verdict for target in found}[
        "echo, 64 connections: of epoll"
    ] == verdict


def test_what_was_not_measured_is_no_verdict() -> None:
    assert {target.verdict for target in targets([])} == {"not measured"}


def test_the_json_has_every_sample() -> None:
    (found,) = json.loads(to_json([result_of({"umbel": 3.0})], 3))["results"]

    assert found["costs"] == {"umbel": [3.0, 3.0, 3.0]}


def test_the_plot_is_well_formed_and_names_the_peers() -> None:
    results = []
    for place in (1, 64, 5000):
        result = result_of({"umbel": 3.0, "epoll": 2.0})
        result.case = replace(result.case, curve="connections", place=place)
        results.append(result)

    drawn = svg(results)

    xml.dom.minidom.parseString(drawn)
    assert "umbel" in drawn
    assert drawn.count("<circle") == 6


@pytest.mark.parametrize(
    "wrong", [["no-such-workload"], ["--peers", "no-such-peer", "echo"]]
)
def test_a_name_that_does_not_exist_is_refused_with_those_that_do(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(wrong)

    assert "there are" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs(tmp_path: Path) -> None:
    said = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "runtime", "--quick", "--targets"),
            *("--only", "a switch", "--json", tmp_path / "found.json"),
            *("--svg", tmp_path / "found.svg"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    assert "umbel/peer" in said.stdout
    assert "not measured" in said.stdout
    assert (tmp_path / "found.json").exists()
    assert (tmp_path / "found.svg").exists()
