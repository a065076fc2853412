"""Several hosts on one machine: network namespaces, joined by a switch.

Not a test itself: tests/test_hosts.py uses it. As a program
(``python hosts.py DELAY LOSS TAP…``) it is the switch for machines whose kernel has no
``netem``: it forwards the frames of TAP devices, late, and without some of them.
"""

import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def why_not() -> str | None:
    """Return why this machine cannot make hosts, or None if it can.

    Installs the command ``ip`` from Debian's packages where it is missing.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are Linux network namespaces, and only root may make those"
    if shutil.which("ip") is None:
        subprocess.run(["apt-get", "update"], check=True)
        subprocess.run(["apt-get", "install", "-y", "iproute2"], check=True)
    return None


def ip(*words: str) -> None:
    """Run one ``ip`` command."""
    subprocess.run(["ip", *words], check=True)


class Hosts:
    """Hosts with one network card each, joined by a switch, and by nothing else.

    Parameters
    ----------
    count : int
        How many. Host ``i`` has the address ``10.77.0.(i + 1)``.
    delay : float
        Milliseconds that each packet takes from a host to the switch.
    loss : float
        Share of the packets that get lost on that way, 0–1.
    """

    def __init__(self, count: int, *, delay: float = 0, loss: float = 0) -> None:
        tag = uuid.uuid4().hex[:6]  # several tests may run at a time
        self.names = [f"course-{tag}-{i}" for i in range(count)]
        self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]
        self._switch = f"course-{tag}-switch"
        self._program: subprocess.Popen | None = None
        try:
            for name in [*self.names, self._switch]:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            worse = delay > 0 or loss > 0
            self.uses_netem = worse and self._has_netem()
            if worse and not self.uses_netem:
                self._join_by_program(tag, delay, loss)
            else:
                self._join_by_bridge()
            for name, address in zip(self.names, self.addresses, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                if self.uses_netem:
                    netem = f"netem delay {delay:g}ms loss {100 * loss:g}%"
                    self._tc(name, f"qdisc add dev eth0 root {netem}")
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def command(self, host: int) -> list[str]:
        """Return what to put before a command to run it on a host."""
        return ["ip", "netns", "exec", self.names[host]]

    def cut(self, host: int) -> None:
        """Pull the plug of a host's network card."""
        ip("-n", self.names[host], "link", "set", "eth0", "down")

    def restore(self, host: int) -> None:
        """Put the plug back."""
        ip("-n", self.names[host], "link", "set", "eth0", "up")

    def reaches(self, host: int, address: str) -> bool:
        """Whether a host can connect to an address within five seconds."""
        connect = (
            "import socket, sys; host, port = sys.argv[1].split(':'); "
            "socket.create_connection((host, int(port)), timeout=5)"
        )
        words = [*self.command(host), sys.executable, "-c", connect, address]
        return subprocess.run(words, capture_output=True).returncode == 0

    def remove(self) -> None:
        """Remove all hosts; their cards go with them."""
        if self._program is not None:
            self._program.kill()
            self._program.wait()
        for name in [*self.names, self._switch]:
            if Path("/run/netns", name).exists():
                ip("netns", "del", name)

    def _tc(self, name: str, words: str) -> None:
        subprocess.run(["tc", "-n", name, *words.split()], check=True)

    def _has_netem(self) -> bool:
        words = ["tc", "-n", self._switch, "qdisc", "add", "dev", "lo", "root", "netem"]
        return subprocess.run(words, capture_output=True).returncode == 0

    def _join_by_bridge(self) -> None:
        """Plug a pair of virtual cards (veth) between each host and a bridge."""
        ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._switch, "link", "set", "bridge", "up")
        for i, name in enumerate(self.names):
            here, there = ["eth0", "netns", name], [f"port{i}", "netns", self._switch]
            ip("link", "add", *here, "type", "veth", "peer", "name", *there)
            ip("-n", self._switch, "link", "set", f"port{i}", "master", "bridge", "up")

    def _join_by_program(self, tag: str, delay: float, loss: float) -> None:
        """Give each host a TAP device, and let this file's program be the switch."""
        taps = [f"tap{tag}{i}" for i in range(len(self.names))]
        words = [sys.executable, __file__, str(delay), str(loss), *taps]
        self._program = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self._program.stdout.readline() == b"ready\n", "the switch did not start"
        for name, tap in zip(self.names, taps, strict=True):
            ip("link", "set", tap, "netns", name)
            ip("-n", name, "link", "set", tap, "name", "eth0")


def switch(delay: float, loss: float, taps: list[str]) -> None:
    """Forward every frame to all other devices, late, and some of them not at all."""
    devices = []
    for tap in taps:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        flags = struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(device, TUNSETIFF, flags)
        devices.append(device)
    print("ready", flush=True)
    chance = random.Random(0)
    waiting: list[tuple[float, int, int, bytes]] = []  # when, order, from, frame
    order = 0
    while True:
        patience = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for device in select.select(devices, [], [], patience)[0]:
            frame = os.read(device, 65536)
            if chance.random() >= loss:
                order += 1
                due = time.monotonic() + delay / 1000
                heapq.heappush(waiting, (due, order, device, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, source, frame = heapq.heappop(waiting)
            for device in devices:
                if device != source:
                    try:
                        os.write(device, frame)
                    except OSError:
                        continue  # that host's card is down: the frame is lost


if __name__ == "__main__":
    switch(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
