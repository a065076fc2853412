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
def test_latency_loss_and_a_cut_link_slow_a_run_and_change_nothing(tmp_path) -> None:
    with (
        Hosts(NODES + 2, delay=40, loss=0.02) as hosts,
        Federation(tmp_path, secure=True, hosts=hosts) as federation,
    ):
        federation.start_all()
        begin = time.monotonic()
        assert "Listing all runs" in federation.ask("list")
        assert time.monotonic() - begin > 4 * 0.04  # a handshake there and back

        # The hosts are joined by the switch alone.
        last = NODES + 1
        hosts.cut(last)
        assert not hosts.reaches(last, federation.address)
        hosts.restore(last)

        run = federation.submit()
        federation.processes["supernode-1"].wait_for("Receiving: train")
        hosts.cut(2)  # the host of SuperNode 1
        assert not hosts.reaches(2, federation.address)
        time.sleep(CUT)
        assert f"Received {NODES} results" not in run.log()
        hosts.restore(2)
        assert run.wait() == 0, run.tail()
        assert run.log().count(f"Received {NODES} results and 0 failures") == ROUNDS
        assert distance(federation.results, reference()) <= TOLERANCE


TOLERANCE = 1e-5
"""Replies are summed in the order in which they come, and sums of floats depend on
their order: that is all that may differ. Seen: below 1e-6."""
