"""A federation of several hosts survives what happens on networks."""

import time

import pytest
from federation import NODES, ROUNDS, Federation, distance, reference
from hosts import Hosts, why_not

# One federation at a time: each of them has the machine to itself.
pytestmark = pytest.mark.xdist_group("processes")

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
        supernode.wait_for("Connection attempt failed, retrying")
        assert "Received 3 results" not in run.log()
        hosts.restore(2)
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
