"""A federation of several hosts survives what happens on networks."""

import time

import pytest
from federation import NODES, ROUNDS, Federation, distance, reference
from hosts import Hosts, why_not

CUT = 8.0
"""Seconds without a link. Much longer, and heartbeats may stay out for the minute after
which Flower gives a SuperNode up: a request that was under way waits for 30 seconds."""

REASON = why_not()
needs_root = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@needs_root
def test_a_cut_link_delays_the_run_and_changes_nothing(tmp_path) -> None:
    with Hosts(NODES + 2) as hosts, Federation(tmp_path, hosts=hosts) as federation:
        federation.start_all()
        run = federation.submit()
        supernode = federation.processes["supernode-1"]
        supernode.wait_for("Receiving: train")
        hosts.cut(2)  # the host of SuperNode 1
        assert not hosts.reaches(2, federation.address)
        time.sleep(CUT)
        assert f"Received {NODES} results" not in run.log()
        hosts.restore(2)
        assert hosts.reaches(2, federation.address)
        assert run.wait(240) == 0
        assert run.log().count(f"Received {NODES} results and 0 failures") == ROUNDS
        assert distance(federation.results, reference()) <= 1e-5


@needs_root
def test_latency_and_loss_slow_the_run_and_change_nothing(tmp_path) -> None:
    with (
        Hosts(NODES + 2, delay=40, loss=0.02) as hosts,
        Federation(tmp_path, secure=True, hosts=hosts) as federation,
    ):
        federation.start_all()
        begin = time.monotonic()
        federation.ask("list")
        assert time.monotonic() - begin > 4 * 0.04  # a handshake there and back
        run = federation.submit()
        assert run.wait(240) == 0
        assert run.log().count(f"Received {NODES} results and 0 failures") == ROUNDS
        assert distance(federation.results, reference()) <= 1e-5


@needs_root
def test_the_hosts_are_joined_by_the_switch_alone(tmp_path) -> None:
    with Hosts(2) as hosts, Federation(tmp_path, hosts=hosts) as federation:
        federation.start_superlink()
        assert "Listing all runs" in federation.ask("list")
        hosts.cut(0)
        with pytest.raises(AssertionError, match="Connection to the SuperLink is un"):
            federation.ask("list")
