"""A federation of a whole room: one SuperLink, and a SuperNode on every laptop.

``python -m course_utils.classroom superlink`` is for the teacher, ``… supernode LINE``
for a participant, and ``… run`` starts a run. How to use them:
notebooks/teaching/classroom.md.
"""

import argparse
import ast
import base64
import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import time
import zlib
from pathlib import Path

from course_utils.deployment import (
    SUPERLINK_READY,
    CommandFailed,
    Deployment,
    Process,
    free_port,
    make_certificates,
    make_supernode_key,
    toml_string,
    write_private,
)

APP = Path(__file__).parents[1] / "notebooks" / "flower_app"
ROOM_APP = Path(__file__).with_name("room_app.py")
NAMES = "Names by node id: "
"""Begins the line by which the run tells names: see room_app.py."""
POLL = 5.0
"""Seconds between two looks at who is online, and between two tries to join."""

ANSWER = 60.0
"""Seconds in which a SuperLink answers, also on a busy machine."""

LONGEST_NAME = 40
"""Characters of a participant's name that are shown."""
A_KEY = 2
"""Seconds that registering a key takes, about: a start of ``flwr`` each."""


def own_address() -> str:
    """Return this machine's address on the network that its traffic takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Connecting a UDP socket sends nothing: it only picks the interface. The
        # address is one of those that RFC 5737 keeps for documentation.
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"  # no network at all
        return probe.getsockname()[0]


def checked(address: str) -> str:
    """Return an address by which others can reach a machine.

    Raises
    ------
    ValueError
        If it is none: a network, an address with a port, IPv6, or a malformed name.
    """
    if re.fullmatch(r"[\d.]+", address):
        try:
            return str(ipaddress.IPv4Address(address))
        except ValueError:
            raise ValueError(
                f"{address} is no IP address: it has four numbers from 0 to 255."
            ) from None
    if ":" in address:
        raise ValueError(
            f"{address}: give a name or an IPv4 address. A port is set by --port; IPv6 "
            "addresses are not supported."
        )
    label = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    if not re.fullmatch(rf"{label}(\.{label})*", address):
        raise ValueError(
            f"{address!r} is no name of a machine: it has letters, digits, hyphens "
            "and dots. Give the machine's IP address instead."
        )
    return address


# ---------------------------------------------------------------------- the join line


def pack(ticket: dict) -> str:
    """Pack what a participant needs into one line without blanks."""
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(ticket).encode())).decode()


def unpack(line: str) -> dict:
    """Unpack a join line.

    Raises
    ------
    ValueError
        If the line is not whole.
    """
    try:
        return json.loads(zlib.decompress(base64.urlsafe_b64decode(line.strip())))
    except (ValueError, zlib.error):
        raise ValueError(
            "This join line is not whole: copy all of it, from the first to the last "
            "character, without line breaks."
        ) from None


def checked_name(name: str) -> str:
    """Return a participant's name, as others will see it.

    Raises
    ------
    ValueError
        If it is too long, or has characters that cannot be seen.
    """
    name = " ".join(name.split())
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"A name has at most {LONGEST_NAME} characters, all of which can be seen: "
            "take a shorter one, such as NAME=Ada."
        )
    return name


def shown_name(name: str) -> str:
    """Return what another machine says that it is called, fit for a projector."""
    visible = "".join(c if c.isprintable() else " " for c in str(name))
    return " ".join(visible.split())[:LONGEST_NAME]


# ------------------------------------------------------------------------ the teacher


def prepare(folder: Path, address: str, participants: int) -> list[dict]:
    """Make the room's certificates, keys and tickets, or find those made before.

    Parameters
    ----------
    folder : Path
        Where they are kept, so that a SuperLink that is started again still knows
        everyone and every join line stays good.
    address : str
        Host and port by which the participants reach this machine.
    participants : int
        How many there are.

    Returns
    -------
    list[dict]
        A ticket for each participant: ``superlink``, ``ca``, ``key``,
        ``partition-id`` and ``num-partitions``.

    Raises
    ------
    ValueError
        If the folder was made for another address or number of participants.
    """
    path = folder / "tickets.json"
    if path.exists():
        tickets = json.loads(path.read_text())
        if len(tickets) != participants or tickets[0]["superlink"] != address:
            raise ValueError(
                f"{folder} was made for {len(tickets)} participants at "
                f"{tickets[0]['superlink']}, not for {participants} at {address}: "
                "delete it, or choose another --folder. Join lines must be handed out "
                "anew then."
            )
        return tickets
    ca = make_certificates(folder / "tls", [address.rpartition(":")[0]], days=30)["ca"]
    tickets = []
    for partition_id in range(participants):
        key, _ = make_supernode_key(folder / "keys" / f"participant-{partition_id}")
        tickets.append(
            {
                "superlink": address,
                "ca": ca.read_text(),
                "key": key.read_text(),
                "partition-id": partition_id,
                "num-partitions": participants,
            }
        )
        key.unlink()  # from here on it is in the ticket only
    write_private(path, json.dumps(tickets).encode())
    return tickets


def start_superlink(deployment: Deployment, address: str) -> Process:
    """Start the room's SuperLink: TLS, known SuperNodes only, a state database."""
    tls = deployment.folder / "tls"
    port = address.rpartition(":")[2]
    words = ["flower-superlink", "--host", "0.0.0.0", "--port", port]
    words += ["--ssl-ca-certfile", str(tls / "ca.pem")]
    words += ["--ssl-certfile", str(tls / "cert.pem")]
    words += ["--ssl-keyfile", str(tls / "key.pem")]
    words += ["--enable-supernode-auth"]
    words += ["--database", str(deployment.folder / "state.db")]
    print(shlex.join(words), flush=True)
    process = deployment.start("superlink", words, ready=SUPERLINK_READY)
    deployment.connect(f"127.0.0.1:{port}", tls / "ca.pem")
    return process


def register(deployment: Deployment, participants: int) -> dict[str, int]:
    """Register every participant's public key, once.

    Returns
    -------
    dict[str, int]
        Each node id and the participant it belongs to.
    """
    path = deployment.folder / "nodes.json"
    nodes = json.loads(path.read_text()) if path.exists() else {}
    if missing := participants - len(nodes):
        seconds = A_KEY * missing
        print(f"Registering {missing} keys takes about {seconds} seconds.", flush=True)
    for number in range(len(nodes), participants):
        public = deployment.folder / "keys" / f"participant-{number}.pub"
        answer = deployment.flwr(
            ["supernode", "register", str(public), "course", "--format", "json"]
        )
        nodes[str(json.loads(answer)["node-id"])] = number
        path.write_text(json.dumps(nodes))
        print(f"\rregistered {len(nodes)} of {participants} keys", end="", flush=True)
    print()
    return nodes


def watch(deployment: Deployment, superlink: Process, nodes: dict[str, int]) -> None:
    """Print who is online whenever that changes, until the SuperLink ends.

    A SuperLink that does not answer may just be busy: that is printed, and no more.
    """
    shown, before, ever = None, set(), False
    while superlink.is_running:
        try:
            online = who_is_online(deployment, nodes)
        except (CommandFailed, TimeoutError):
            now = "The SuperLink does not answer. This goes on asking."
        else:
            names, left = read_names(deployment.folder), before - online
            ever |= bool(online)
            nobody = "nobody any more" if ever else "nobody yet"
            who = listed(online, names) or nobody
            now = f"{len(online)} of {len(nodes)} online: {who}"
            if left:
                now += f" (has left: {listed(left, names)})"
            # Who has left is told once, and the line without it is no news.
            if not left and before == online and shown and shown.startswith(f"{now} ("):
                now = shown
            before = online
        if now != shown and superlink.is_running:
            print(f"{time.strftime('%H:%M:%S')}  {now}", flush=True)
            shown = now
        time.sleep(POLL)
    raise CommandFailed(f"The SuperLink ended:\n{superlink.tail()}")


def who_is_online(deployment: Deployment, nodes: dict[str, int]) -> set[int]:
    """Ask the SuperLink which participants are online.

    Raises
    ------
    CommandFailed, TimeoutError
        If it does not answer.
    """
    command = ["supernode", "list", "course", "--format", "json"]
    known = json.loads(deployment.flwr(command, timeout=ANSWER))["nodes"]
    return {nodes[node["node-id"]] for node in known if node["status"] == "online"}


def listed(participants: set[int], names: dict[int, str]) -> str:
    """Return participants by number, each with the name that is known."""
    people = [f"{n} {names.get(n, '')}".strip() for n in sorted(participants)]
    # A name may have blanks, so that there must be more between people.
    return (", " if any(names.get(n) for n in participants) else " ").join(people)


def read_names(folder: Path) -> dict[int, str]:
    """Return the names that participants gave in the last runs, by their number."""
    path = folder / "names.json"
    if not path.exists():
        return {}
    return {int(n): name for n, name in json.loads(path.read_text("utf-8")).items()}


def superlink_command(arguments: argparse.Namespace) -> None:
    """Serve a room until Ctrl+C."""
    if arguments.participants < 1:
        raise ValueError("A room has at least one participant: --participants 1.")
    address = f"{checked(arguments.address or own_address())}:{arguments.port}"
    folder = arguments.folder.resolve()
    tickets = prepare(folder, address, arguments.participants)
    print("Starting the SuperLink takes about 10 seconds.", flush=True)
    with Deployment(folder) as deployment:
        superlink = start_superlink(deployment, address)
        nodes = register(deployment, arguments.participants)
        lines = "".join(f"make supernode JOIN={pack(ticket)}\n" for ticket in tickets)
        path = folder / "join-lines.txt"
        write_private(path, lines.encode())
        print(
            f"\nA line for each participant is in {path}\n(read by you alone)", end=""
        )
        print(
            f":\n\n{lines}" if arguments.show_lines else ". --show-lines prints them."
        )
        if arguments.here:
            for ticket in tickets:
                start_supernode(deployment, ticket)
        print("Start a run from another terminal: make run. End with Ctrl+C.\n")
        watch(deployment, superlink, nodes)


class RunView:
    """What a projector shows of a run: a row a round, made from Flower's log.

    Parameters
    ----------
    nodes : dict[str, int]
        Each node id and the participant it belongs to.
    names : dict[int, str]
        The names that are known, by participant. Those of this run are added.
    """

    COLUMNS = (
        "round",
        "online",
        "asked",
        "replied",
        "failed",
        "train-loss",
        "accuracy",
    )

    def __init__(self, nodes: dict[str, int], names: dict[int, str]) -> None:
        self.nodes, self.names = nodes, names
        self.row: dict[str, str] = {}
        self.has_begun = self.is_saved = False

    def read(self, text: str) -> None:
        """Take lines of the log, and print what they mean."""
        for line in text.splitlines():
            for said in self.understand(line.strip()):
                print(said, flush=True)

    def understand(self, line: str) -> list[str]:
        """Return what to print for a line of the log."""
        if NAMES in line:
            return self.take_names(json.loads(line.partition(NAMES)[2]))
        if match := re.search(r"\[ROUND (\d+)/(\d+)\]", line):
            self.row = {"round": f"{match[1]}/{match[2]}"}
        elif match := re.search(r"configure_train: Sampled (\d+) .*out of (\d+)", line):
            self.row |= {"asked": match[1], "online": match[2]}
        elif match := re.search(r"aggregate_train: Received (\d+) .*and (\d+)", line):
            self.row |= {"replied": match[1], "failed": match[2]}
        elif match := re.search(r"Received error in reply from node (\d+): (.*)", line):
            return [f"  failed: {self.person(match[1])}: {match[2][:100]}"]
        elif match := re.search(r"(Aggregated )?MetricRecord: (\{.*\})", line):
            metrics = ast.literal_eval(match[2])
            if "train-loss" in metrics:
                self.row["train-loss"] = f"{metrics['train-loss']:.3f}"
            if not match[1]:  # the server's own, with which a round ends
                self.row["accuracy"] = f"{metrics['eval-accuracy']:.3f}"
                return self.end_round()
        elif match := re.search(r"Initial global evaluation results: (\{.*\})", line):
            accuracy = ast.literal_eval(match[1])["eval-accuracy"]
            return [f"Before training, the accuracy is {accuracy:.3f}."]
        elif line.startswith(("Waiting for SuperNodes", "Saved in")):
            self.is_saved |= line.startswith("Saved in")
            return [line]
        return []

    def take_names(self, by_node: dict[str, str]) -> list[str]:
        """Take the names that SuperNodes have said, and return who is here."""
        here = {self.nodes[node] for node in by_node if node in self.nodes}
        said = {
            self.nodes[n]: shown_name(x) for n, x in by_node.items() if n in self.nodes
        }
        self.names |= {number: name for number, name in said.items() if name}
        return [f"Here: {listed(here, self.names) or 'nobody yet'}."]

    def person(self, node: str) -> str:
        """Return whose SuperNode a node id is."""
        return listed({self.nodes[node]}, self.names) if node in self.nodes else node

    def end_round(self) -> list[str]:
        """Return the row of a round, below the header if it is the first one."""
        cells = [self.row.get(column, "–") for column in self.COLUMNS]
        rows = [cells] if self.has_begun else [self.COLUMNS, cells]
        self.has_begun = True
        return [
            "  ".join(
                f"{c:>{max(7, len(k))}}" for c, k in zip(r, self.COLUMNS, strict=True)
            )
            for r in rows
        ]


def make_room_app(folder: Path) -> Path:
    """Copy the Flower App, and add what asks for names; return where it is."""
    app = folder / APP.name
    leave_out = shutil.ignore_patterns("__pycache__", "results")
    shutil.copytree(APP, app, ignore=leave_out)
    shutil.copy(ROOM_APP, app / "federated_digits" / "room.py")
    path = app / "pyproject.toml"
    text = path.read_text("utf-8")
    for kind in ("server", "client"):
        text = text.replace(f"{kind}_app:app", f"room:{kind}_app")
    path.write_text(text, encoding="utf-8")
    return app


def run_command(arguments: argparse.Namespace) -> None:
    """Run the app on the room's SuperLink, and show each round."""
    folder = arguments.folder.resolve()
    if not (folder / "tickets.json").exists():
        raise ValueError(f"No SuperLink was started in {folder}: make superlink first.")
    address = json.loads((folder / "tickets.json").read_text())[0]["superlink"]
    view = RunView(json.loads((folder / "nodes.json").read_text()), read_names(folder))
    with Deployment() as deployment:
        port = address.rpartition(":")[2]
        deployment.connect(f"127.0.0.1:{port}", folder / "tls" / "ca.pem")
        config = f"results-dir={toml_string(folder / 'results')} {arguments.config}"
        app = make_room_app(deployment.folder)
        command = ["run", str(app), "course", "--stream", "--run-config", config]
        print(
            "A run of 3 rounds takes one to two minutes, and shows little in the first "
            "half: for each message, a laptop starts a process that loads PyTorch.",
            flush=True,
        )
        log = deployment.flwr(command, show=view.read, timeout=arguments.timeout)
    write_private(folder / "run.log", log.encode())
    names = {str(number): name for number, name in view.names.items()}
    write_private(folder / "names.json", json.dumps(names).encode())
    print(f"All that Flower said is in {folder / 'run.log'}.")
    if not view.is_saved:
        last = "\n".join(log.strip().splitlines()[-20:])
        raise CommandFailed(f"The run ended without a model. Its last lines:\n{last}")


# -------------------------------------------------------------------- the participants


def start_supernode(deployment: Deployment, ticket: dict, person: str = "") -> Process:
    """Start a participant's SuperNode, its node config with a name if there is one."""
    name = f"supernode-{ticket['partition-id']}"
    ca, key = (deployment.folder / f"{name}.{part}" for part in ("ca", "key"))
    for path, text in ((ca, ticket["ca"]), (key, ticket["key"])):
        write_private(path, text.encode())
    config = " ".join(f"{k}={ticket[k]}" for k in ("partition-id", "num-partitions"))
    if person:
        # Flower takes what stands between two quotes, so that none can stand inside.
        text = person.replace("\\", r"\u005C").replace('"', r"\u0022")
        config += f' name="{text}"'
    words = ["flower-supernode", "--superlink", ticket["superlink"]]
    words += ["--root-certificates", str(ca)]
    words += ["--auth-supernode-private-key", str(key)]
    words += ["--port", str(free_port()), "--node-config", config]
    host = ticket["superlink"].rpartition(":")[0]
    if host not in deployment.direct:  # a SuperNode that ended is started again
        deployment.direct.append(host)
    print(shlex.join(words), flush=True)
    return deployment.start(name, words)


def supernode_command(arguments: argparse.Namespace) -> None:
    """Take part until Ctrl+C: start the SuperNode, and again whenever it ends."""
    ticket, name = unpack(arguments.line), checked_name(arguments.name)
    number = ticket["partition-id"]
    who = f"participant {number}" + (f", {name}" if name else "")
    print(f"You are {who}. Joining takes about 10 seconds, and stays until Ctrl+C.")
    if name:
        print(
            "Whoever runs an app here can read your name; the teacher's run shows it."
        )
    try:
        with Deployment() as deployment:
            while True:
                supernode = start_supernode(deployment, ticket, name)
                supernode.show(timeout=float("inf"))
                # After a power cut the SuperLink refuses the node for a minute, until
                # it has noticed that its old self is gone.
                print(
                    f"The SuperNode ended. Next try in {POLL:g} s (Ctrl+C ends this)."
                )
                time.sleep(POLL)
    finally:
        print(
            f"\nYou have left. The teacher sees that participant {number} is gone: in "
            "some seconds, or in a minute if the network has failed."
        )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="course_utils.classroom", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="superlink|supernode|run")
    superlink = commands.add_parser("superlink", help="serve a room (the teacher)")
    superlink.set_defaults(command=superlink_command)
    superlink.add_argument(
        "--participants", type=int, default=30, help="how many join lines to make"
    )
    superlink.add_argument(
        "--address", help="name or IP address by which the room reaches this machine"
    )
    superlink.add_argument("--port", type=int, default=9091)
    superlink.add_argument(
        "--here",
        action="store_true",
        help="start all SuperNodes on this machine: for a room without a network",
    )
    superlink.add_argument(
        "--show-lines",
        action="store_true",
        help="print the join lines, too: each holds a private key",
    )
    supernode = commands.add_parser("supernode", help="take part (a participant)")
    supernode.set_defaults(command=supernode_command)
    supernode.add_argument("line", help="what the teacher handed out")
    supernode.add_argument(
        "--name", default="", help="what the teacher may call you (default: nothing)"
    )
    run = commands.add_parser("run", help="start a run, and show its rounds")
    run.set_defaults(command=run_command)
    run.add_argument(
        "--config",
        default="",
        help="settings of the app, such as 'num-server-rounds=5 lr=0.05'",
    )
    run.add_argument(
        "--timeout", type=float, default=3600.0, help="seconds (%(default)g)"
    )
    for each in (superlink, run):
        each.add_argument(
            "--folder", type=Path, default=Path("classroom"), help="(%(default)s)"
        )
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # no bar between the lines of a terminal
    # Ctrl+C ends it also where a script has started it in the background, and so does
    # `kill`: both clean up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        arguments.command(arguments)
    except KeyboardInterrupt:
        print("\nEnded.")
    except (ValueError, CommandFailed, TimeoutError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
