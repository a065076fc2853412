"""Refuse every connection beyond this machine, where the network can't be cut.

Python imports a module of this name at its start when this folder is on PYTHONPATH.
"""

import socket

_connect = socket.socket.connect


def connect(self: socket.socket, address: object) -> None:
    """Connect as usual to this machine, and to nothing else."""
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])
        if host not in ("localhost", "::1") and not host.startswith("127."):
            raise OSError(f"The tests have cut the network: no connection to {host}.")
    _connect(self, address)


socket.socket.connect = connect
