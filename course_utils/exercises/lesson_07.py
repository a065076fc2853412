"""Lesson 07's exercises."""

import argparse
import random
import re
import shlex
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NoReturn

from course_utils.exercises.engine import (
    Attempt,
    Case,
    Exercise,
    Wrong,
    require_kind,
)

# ----------------------------------------------------------------- 7.1 supernode_words

OPTIONS = (
    *("--superlink", "--port", "--node-config", "--root-certificates"),
    "--auth-supernode-private-key",
)


class Parser(argparse.ArgumentParser):
    """Reads what flower-supernode is told, as far as it matters here."""

    def error(self, message: str) -> NoReturn:
        """Raise in place of ending the program."""
        raise Wrong(f"flower-supernode would not understand this: {message}")


def play_command(answer: Attempt, *args: Any) -> Iterator:
    """Yield what flower-supernode would understand."""
    got = answer(*args)
    if not isinstance(got, str):
        require_kind(got, [])
    yield "a list", isinstance(got, list | tuple)
    kinds = sorted({type(word).__name__ for word in got})
    yield "kinds of words", kinds
    if kinds != ["str"]:
        return
    yield "the program", got[0]
    parser = Parser(add_help=False)
    for option in (*OPTIONS, "--isolation", "--max-retries", "--max-wait-time"):
        parser.add_argument(option)
    parser.add_argument("--insecure", action="store_const", const=True)
    said, others = parser.parse_known_args(list(got[1:]))
    yield "not understood", others
    for option in (*OPTIONS, "--insecure"):
        value = getattr(said, option.strip("-").replace("-", "_"))
        if value is not None:
            yield option, sorted(value.split()) if "config" in option else value
    yield "--isolation", said.isolation or "subprocess"


AT, TO, OWN = "{host}:{to}", "{to}", "{own}"
WORDS = ["flower-supernode", "--superlink", AT, "--port", OWN]
DATA = "partition-id={i} num-partitions={n}"
TLS, NO_TLS = ["--root-certificates", "{ca}"], ["--insecure"]
AUTH = ["--auth-supernode-private-key", "{key}"]


def edited(
    old: str = "",
    *new: str,
    refuse: Callable = lambda ca, key: key and not ca,
) -> Callable:
    """Make an answer with other words for one of its words, or that refuses others."""

    def words(link: str, i: int, n: int, port: int, ca: Any, key: Any) -> list[str]:
        if refuse(ca, key):
            raise ValueError("There is no TLS.")
        trust = [*(TLS if ca else NO_TLS), *(AUTH if key else [])]
        row = [[word] for word in (*WORDS, "--node-config", DATA, *trust)]
        row = [new if word == [old] else word for word in row]
        host, to = link.split(":")
        values = {"host": host, "to": to, "own": port, "ca": ca, "key": key}
        return [word.format(**values, i=i, n=n) for words in row for word in words]

    return words


def random_command(rng: random.Random) -> Case:
    """Draw what to say in a command."""
    parts, port = rng.randint(2, 400), rng.randint(1024, 65535)
    trust = rng.choice([(None, None), (f"{parts}.pem", None), ("ca.pem", f"k-{parts}")])
    host = f"10.{rng.randrange(256)}.{rng.randrange(256)}.1:{rng.randint(1024, 65535)}"
    return Case(host, rng.randrange(parts), parts, port, *trust)


LAN, KEY = "192.168.0.7:9092", "keys/supernode-0"
oracle = edited()

COMMAND = Exercise(
    "7.1",
    "any machine can join your federation by this command.",
    cases=[
        Case(
            *("127.0.0.1:9092", 0, 3, 9095, None, None),
            gives={
                "the program": "flower-supernode",
                "--superlink": "127.0.0.1:9092",
                "--port": "9095",
                "--node-config": ["num-partitions=3", "partition-id=0"],
                "--insecure": True,
            },
        ),
        Case("superlink.example.org:443", 2, 30, 9101, None, None),
        Case(LAN, 0, 3, 9095, "ca.pem", None, gives={"--root-certificates": "ca.pem"}),
        Case(LAN, 1, 3, 9096, "ca", KEY, gives={"--auth-supernode-private-key": KEY}),
        Case(LAN, 1, 3, 9096, "the course/ca.pem", "the course/key 1"),
        Case(LAN, 1, 3, 9096, None, KEY, gives=ValueError),
    ],
    draw=random_command,
    play=play_command,
    oracle=oracle,
    mistakes={
        "this is one str: return a list of words, as no shell will take it apart "
        "(shlex.split does)": lambda *args: shlex.join(oracle(*args)),
        "there is a list in the list: join them by +, or unpack by *": (
            lambda *args: [*oracle(*args), []]
        ),
        "there is a number in the list, and words are str: str(...) makes one of it": (
            lambda *args: [*oracle(*args), 9095]
        ),
        "None is no word: leave out the options that are not used": (
            lambda *args: [*oracle(*args), None]
        ),
        "there are quotes inside a word: they are for a shell, which removes them, and "
        "no shell reads this list": [
            *(edited(DATA, f"'{DATA}'"), edited(DATA, *f"'{DATA}'".split())),
            *(edited(DATA, f'"{DATA}"'), edited(DATA, *f'"{DATA}"'.split())),
        ],
        "a file's name may hold spaces, and was split at one: put it into the list as "
        "it is": lambda *args: oracle(*args)[:7] + " ".join(oracle(*args)[7:]).split(),
        "--node-config takes one word with a space in it, and here are two": (
            edited(DATA, *DATA.split())
        ),
        "a space stands between the two settings, and nothing else": [
            edited(DATA, DATA.replace(" ", sign)) for sign in (",", ", ", ";", "; ")
        ],
        "the settings have hyphens: partition-id and num-partitions": (
            edited(DATA, DATA.replace("-", "_"))
        ),
        "partition-id and num-partitions are mixed up": (
            edited(DATA, "partition-id={n} num-partitions={i}")
        ),
        "an option and its value are two words (or one, joined by =), and one of these "
        "has a space in it": (
            lambda *args: [*oracle(*args)[:3], f"--port {args[3]}", *oracle(*args)[5:]]
        ),
        "--port is the SuperNode's own, not that of the SuperLink": edited(OWN, TO),
        "Flower wants host:port, without http:// or https://": [
            edited(AT, f"{scheme}://{AT}") for scheme in ("http", "https")
        ],
        "this is the SuperNode's own port, in --superlink": edited(AT, "{host}:{own}"),
        "--superlink takes host:port, and the port is gone": edited(AT, "{host}"),
        "--insecure says without TLS, --root-certificates says with it: Flower refuses "
        "both together": edited("{ca}", "{ca}", "--insecure"),
        "--ssl-ca-certfile is for calls to this SuperNode: the CA of the SuperLink's "
        "certificate is --root-certificates": edited(TLS[0], "--ssl-ca-certfile"),
        "no key is given here, so there is no --auth-supernode-private-key": (
            edited("--insecure", AUTH[0], "None", "--insecure")
        ),
        "the first word is the program's name, flower-supernode": [
            edited(WORDS[0], *other) for other in (["flower-superlink"], [])
        ],
        "a key proves nothing without TLS, and the SuperNode would end at once: raise "
        "a ValueError": edited(refuse=lambda ca, key: False),
        "nothing is amiss here, so there is no ValueError: only a key without a CA is "
        "refused": [
            edited(refuse=lambda ca, key: not ca),
            edited(refuse=lambda ca, key: not key),
            edited(refuse=lambda ca, key: key),
            edited(refuse=lambda ca, key: ca and not key),
        ],
    },
    otherwise={
        "a list": "return a list of words",
        "kinds of words": "all words are str, and there is at least one",
        "not understood": "flower-supernode does not know these, or nobody has asked "
        "for them",
        "no --superlink": "--superlink is missing: which SuperLink is it to join?",
        "no --port": "--port is missing: without it, all SuperNodes of a machine want "
        "the same one",
        "no --node-config": "--node-config is missing: it says which data are here",
        "no --root-certificates": "here is a CA: --root-certificates names it",
        "no --insecure": "without a CA the SuperNode must be told so: --insecure",
        "no -key": "here is a key: --auth-supernode-private-key names it",
        "--node-config": "--node-config says something else than was given",
        "": "this option says something else than was given",
    },
)

# ------------------------------------------------------------------------- 7.2 diagnose


def start(option: str = "", port: int = 9095) -> str:
    """Return what a SuperNode prints first, started with an option."""
    said = {
        "--insecure": "WARNING :   Option `--insecure` was set. Starting insecure "
        "channel to 127.0.0.1:9092.\n",
        "no CA": "INFO :      Using system certificates for TLS connection\n",
    }
    return (
        f"INFO :      Starting Flower SuperNode\n{said.get(option, '')}"
        "INFO:     Started server process [4711]\n"
        "INFO:     Application startup complete.\n"
        f"INFO:     Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)\n"
    )


def refusal(reason: str) -> str:
    """Return what a SuperNode prints when it gives up."""
    tls = "ERROR :     SSL/TLS handshake error detected.\n" if "SSL" in reason else ""
    return (
        f"{tls}ERROR :     Exit Code: 305\n"
        f"Failed to initialize the connection to the SuperLink.\n{reason}\n"
        "The SuperNode could not establish a connection to the SuperLink.\n"
        "INFO:     Application shutdown complete.\n"
    )


VERIFY = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
WRONG_CA = refusal(f"{VERIFY}unable to get local issuer certificate (_ssl.c:1006)")
EXPIRED = refusal(f"{VERIFY}certificate has expired (_ssl.c:1006)")
UNREGISTERED = refusal("[code: 2004] Failed to activate SuperNode.")
NO_KEY = refusal(
    "[code: 2001] SuperNode authentication is enabled. All SuperNodes must be "
    "registered via the CLI."
)
RETRIES = "".join(
    f"WARNING :   Connection attempt failed, retrying in {seconds} seconds\n"
    for seconds in ("0.61", "0.44", "3.02")
)
GIVES_UP = "WARNING :   Giving up reconnection after 2.43 seconds and 3 tries.\n"
CUT_OFF = GIVES_UP + refusal("Server disconnected without sending a response.")
NOBODY = GIVES_UP + refusal("All connection attempts failed")
CONNECTED = "INFO :      Connection successful after 9.67 seconds and 5 tries.\n"
LET_IN = (
    "INFO :      SuperNode ID: 17344450183926050190\n"
    "INFO :      Starting Flower SuperExec\n"
)
MARKS = (
    "[code",
    "[SSL",
    "SuperNode ID",
    "attempt failed",
    "certificates",
    "--insecure",
)


def log(what: str, text: str, cause: str) -> Case:
    """Make a case of a SuperNode's log, of which the most telling line is shown."""
    lines = text.splitlines()
    telling = next((line for m in MARKS for line in lines if m in line), lines[-1])
    return Case(text, gives=cause, shown={f"log of a SuperNode that {what}": telling})


PLAIN = start("--insecure")
LOGS = [
    log("trusts another CA", start() + WRONG_CA, "wrong CA"),
    log("was given no CA", start("no CA") + WRONG_CA, "wrong CA"),
    log("meets an expired certificate", start() + EXPIRED, "expired certificate"),
    log("has an unknown key", start(port=42001) + UNREGISTERED, "unregistered key"),
    log("shows no key", start(port=42004) + NO_KEY, "no key"),
    log("speaks plain HTTP to TLS", PLAIN + RETRIES, "no TLS"),
    log("speaks plain HTTP to TLS and gives up", PLAIN + RETRIES + CUT_OFF, "no TLS"),
    log("was let in", start(port=42004) + LET_IN, "nothing"),
    log("has just been started without TLS", PLAIN, "nothing"),
    log("was let in without TLS", PLAIN + LET_IN, "nothing"),
    log("waits for a SuperLink", start(port=42004) + RETRIES, "nothing"),
    log("finds no SuperLink", start(port=42001) + RETRIES + NOBODY, "nothing"),
    log("waits, trusting its system's CAs", start("no CA") + RETRIES, "nothing"),
    log("is let in late", PLAIN + RETRIES + CONNECTED + LET_IN, "nothing"),
    log("has lost its SuperLink", PLAIN + LET_IN + RETRIES, "nothing"),
    log(
        "was refused, then let in", start() + UNREGISTERED + start() + LET_IN, "nothing"
    ),
    log("came back too soon", start() + LET_IN + start() + UNREGISTERED, "nothing"),
]


def random_log(rng: random.Random) -> Case:
    """Draw a log, with ids, ports and times that are drawn anew."""
    case = rng.choice(LOGS)
    (text,) = case.args
    for old in ("17344450183926050190", "4711", "9095", "9.67", "0.61", "3.02"):
        digits = str(rng.randrange(10 ** (len(old) - 1), 10 ** len(old)))
        text = text.replace(old, f"{digits[0]}.{digits[1:3]}" if "." in old else digits)
    return Case(text, gives=case.gives, shown=case.shown)


SIGNS = {
    "has expired": "expired certificate",
    "local issuer": "wrong CA",
    "[code: 2004]": "unregistered key",
    "[code: 2001]": "no key",
}


def looking_for(
    signs: dict[str, str],
    let_in: str = "SuperNode ID:",
    plain: tuple[str, ...] = ("--insecure", "attempt failed"),
    say: Callable = str,
) -> Callable:
    """Make an answer that looks for signs, one after the other."""

    def answer(log: str) -> str:
        if let_in in log:
            return say("nothing")
        causes = [cause for sign, cause in signs.items() if sign in log]
        if not causes and all(sign in log for sign in plain):
            causes = ["no TLS"]
        return say([*causes, "nothing"][0])

    return answer


DIAGNOSIS = Exercise(
    "7.2",
    "you can say why a SuperNode stays out, from its log alone.",
    cases=LOGS,
    draw=random_log,
    mistakes={
        "both logs say CERTIFICATE_VERIFY_FAILED: what follows says whether the CA is "
        "not trusted or the certificate has expired": [
            looking_for({sign: cause} | SIGNS)
            for sign in ("CERTIFICATE_VERIFY_FAILED", "certificate verify", "[SSL")
            for cause in ("wrong CA", "expired certificate")
        ],
        "the word certificate stands in other logs, too: look for all of 'certificate "
        "has expired'": [
            looking_for({"certificate": "expired certificate"} | SIGNS),
            looking_for(SIGNS | {"certificate": "expired certificate"}),
        ],
        "a port may have the digits of a code in it: look for all of [code: 2001] and "
        "[code: 2004]": [
            looking_for({"2004": "unregistered key", "2001": "no key"} | SIGNS),
            looking_for({"2001": "no key", "2004": "unregistered key"} | SIGNS),
        ],
        "the two codes are mixed up: 2004 is a key that nobody registered, 2001 is no "
        "key": looking_for(
            SIGNS | {"[code: 2001]": "unregistered key", "[code: 2004]": "no key"}
        ),
        "the code in the log says what is wrong": (
            looking_for({sign: SIGNS[sign] for sign in ("has expired", "local issuer")})
        ),
        "this SuperNode was let in, once at least: its log says SuperNode ID, and what "
        "else it says is over or will pass": [
            looking_for(SIGNS, let_in="?"),
            looking_for(SIGNS, let_in="Connection successful"),
        ],
        "--insecure is no fault by itself: look for attempts that failed, too, and for "
        "a SuperNode ID": [
            looking_for(SIGNS, plain=("--insecure",)),
            looking_for(SIGNS, plain=("--insecure",), let_in="?"),
        ],
        "attempts that failed are no refusal by themselves: the SuperLink may not be "
        "there yet, and only --insecure says that there is no TLS": (
            looking_for(SIGNS, plain=("attempt failed",))
        ),
        "it was started with --insecure, and its attempts fail: that is all a "
        "SuperNode says that speaks plain HTTP to TLS, for ever if there are no "
        "--max-retries": [
            looking_for(SIGNS, plain=("Server disconnected",)),
            looking_for(SIGNS | {"Server disconnected": "nothing"}),
            looking_for(SIGNS, plain=("--insecure", "handshake error")),
        ],
        "say it letter by letter as the task does": [
            looking_for(SIGNS, say=say)
            for say in (str.capitalize, str.title, str.upper, str.lower)
        ],
    },
    otherwise="this is not what the log says: return one of 'wrong CA', 'expired "
    "certificate', 'no TLS', 'unregistered key', 'no key', 'nothing'",
)

# ---------------------------------------------------------------------- 7.3 read_rounds

KEYS = ("round", "sampled", "results", "failures", "missing")
HEAD = """\
Starting FedAvg strategy:
\t├── Number of rounds: 2
\t│\t├──Minimum nodes: train (2) | evaluate (0)
\t│\t└──Minimum available nodes: 3
Initial global evaluation results: {'eval-loss': 2.3011, 'eval-accuracy': 0.1}"""
ERROR = """
\t> Received error in reply from node 3387737867232134911: <class 'ValueError'>:\
<'No partition 7: there are 3, numbered from 0.'>"""
CUT = "│ Connection to the SuperLink is unavailable. Please check your network."


def entry(*values: int | None) -> dict[str, Any]:
    """Return what is to be said of a round."""
    return dict(zip(KEYS, values, strict=True))


def lines_of(
    sampled: int | None = None,
    nodes: int | None = None,
    results: int | None = None,
    failures: int | None = None,
    evaluated: int | None = None,
) -> Iterator[str]:
    """Yield what ``flwr run --stream`` prints of a round, as far as it came."""
    if sampled is None:
        yield "Waiting for nodes to connect: 1 connected (minimum required: 3)."
    else:
        yield f"configure_train: Sampled {sampled} nodes (out of {nodes})"
    if results is not None:
        yield f"aggregate_train: Received {results} results and {failures} failures"
        yield ERROR.strip("\n") * min(failures, 1)
        yield "\t└──> Aggregated MetricRecord: {'train-loss': 1.3238706059045}"
    if evaluated:
        yield f"configure_evaluate: Sampled {evaluated} nodes (out of 400)"
        yield f"aggregate_evaluate: Received {evaluated - 1} results and 1 failures"


def log_of(*run: tuple, gives: list[dict] | None = None) -> Case:
    """Make a case of the log of a run, which breaks off if its last round does."""
    lines = HEAD.splitlines()
    for number, counts in enumerate(run, 1):
        lines += ["", f"[ROUND {number}/{len(run)}]", *lines_of(*counts)]
    text = "\n".join(f"INFO :      {line}" for line in lines)
    if not run or len(run[-1]) < 4:
        text += f"\n{CUT}"
    if gives is None:
        gives = [say(i, *(*counts, *[None] * 4)[:4]) for i, counts in enumerate(run, 1)]
    told = [line for line in lines if line.startswith(("[R", "configure", "aggregate"))]
    return Case(f"{text}\n", gives=gives, shown={"log": "; ".join(told) or "no round"})


def random_run(rng: random.Random) -> Case:
    """Draw a run, of which the last round may break off."""
    run = []
    for _ in range(rng.randint(2, 12)):
        nodes = rng.randint(3, 300)
        sampled = rng.randint(2, nodes)
        failures = rng.randint(0, min(3, sampled))
        results = rng.randint(0, sampled - failures)
        run.append((sampled, nodes, results, failures, rng.choice([0, nodes])))
    return log_of(*run, *rng.choice([[], [(5, 9)], [()]]))


def say(
    number: int,
    sampled: int | None,
    nodes: int | None,
    results: int | None,
    failures: int | None,
    slip: Callable = lambda n, s, of, r, f, m: (n, s, r, f, m),
    unknown: Callable = lambda s: (None, None, None),
) -> dict[str, Any]:
    """Return what is to be said of a round, perhaps with a slip."""
    if results is None:
        return entry(number, sampled, *unknown(sampled))
    missing = sampled - results - failures
    return entry(*slip(number, sampled, nodes, results, failures, missing))


def reading(
    *slip: Callable,
    phase: str = "train",
    which: int = 0,
    change: Callable = lambda rows, log: rows,
    **unknown: Callable,
) -> Callable:
    """Make an answer that reads a log, perhaps with a slip."""

    def read(log: str) -> Any:
        rows = []
        for part in log.split("[ROUND ")[1:]:
            asked = re.findall(rf"{phase}: Sampled (\d+) nodes \(out of (\d+)", part)
            replied = re.findall(rf"{phase}: Received (\d+) results and (\d+)", part)
            numbers = [f[which] if f else (None, None) for f in (asked, replied)]
            numbers = [n and int(n) for pair in numbers for n in pair]
            rows.append(say(int(part.split("/")[0]), *numbers, *slip, **unknown))
        return change(rows, log)

    return read


def carried_over(rows: list[dict], log: str) -> list[dict]:
    """Say of a round that breaks off what was read of the one before it."""
    for one, other in pairwise(rows):
        other |= {key: one[key] for key in KEYS if other[key] is None}
    return rows


ROUNDS = Exercise(
    "7.3",
    "your log says of each round who has not answered, which Flower's does not.",
    cases=[
        log_of(
            *((3, 3, 2, 1), (5, 10, 3, 0)),
            gives=[entry(1, 3, 2, 1, 0), entry(2, 5, 3, 0, 2)],
        ),
        log_of((5, 10, 3, 1), (5, 10, 4, 1)),
        log_of((4, 5, 4, 0, 3), (4, 5, 2, 1, 5)),
        log_of((128, 250, 97, 14), gives=[entry(1, 128, 97, 14, 17)]),
        log_of(*[(2, 4, 2, 0)] * 11),
        log_of(
            *((3, 3, 2, 0), (3, 3)),
            gives=[entry(1, 3, 2, 0, 1), entry(2, 3, None, None, None)],
        ),
        log_of((3, 3, 3, 0), ()),
        log_of((4, 4), (4, 4, 4, 0)),
        log_of((4, 4, None, None, 3), (4, 4, 4, 0, 3)),
        log_of(gives=[]),
    ],
    draw=random_run,
    mistakes={
        "these numbers are of the evaluation: read the lines of training only": [
            reading(phase="", which=-1),
            reading(phase="", which=0),
        ],
        "these are all nodes: sampled is the number before (out of ...)": [
            reading(lambda n, s, of, r, f, m: (n, of, r, f, of - r - f)),
            reading(lambda n, s, of, r, f, m: (n, of, r, f, m)),
        ],
        "missing counts from the nodes that were sampled, not from all": (
            reading(lambda n, s, of, r, f, m: (n, s, r, f, of - r - f))
        ),
        "a failure is an answer, too: missing is who sent neither": (
            reading(lambda n, s, of, r, f, m: (n, s, r, f, s - r))
        ),
        "missing is sampled minus results minus failures": (
            reading(lambda n, s, of, r, f, m: (n, s, r, f, -m))
        ),
        "results and failures are mixed up": (
            reading(lambda n, s, of, r, f, m: (n, s, f, r, m))
        ),
        "a number may have more than one digit: \\d+ finds them all": reading(
            lambda n, *counts: say(n, *(int(str(c)[0]) for c in counts[:4])).values()
        ),
        "these are texts: int(...) makes numbers of them": [
            reading(lambda n, s, of, r, f, m: map(str, (n, s, r, f, m))),
            reading(lambda n, s, of, r, f, m: (*map(str, (n, s, r, f)), m)),
        ],
        "rounds are numbered from 1, as in the log": (
            reading(lambda n, s, of, r, f, m: (n - 1, s, r, f, m))
        ),
        "the log does not say how many replied here, so nobody knows: None, also for "
        "missing, and not 0 or what was read before": [
            reading(unknown=lambda s: (0, 0, 0)),
            reading(unknown=lambda s: (0, 0, s)),
            reading(unknown=lambda s: (None, None, 0)),
            reading(unknown=lambda s: (None, None, s)),
            reading(change=carried_over),
        ],
        "a round that has no line on its results is missing: it began, all right": (
            reading(
                change=lambda rows, log: [r for r in rows if None not in r.values()]
            )
        ),
        "there is one entry for each round: leave the evaluation out": reading(
            change=lambda rows, log: sorted(
                rows * (1 + ("evaluate: Sampled" in log)), key=lambda r: r["round"]
            )
        ),
        "your function should return a list of dictionaries, one for each round": [
            reading(change=lambda rows, log: [list(r.values()) for r in rows]),
            reading(change=lambda rows, log: [tuple(r.values()) for r in rows]),
            reading(change=lambda rows, log: rows[-1:]),
        ],
        "here a round has no line on its results, or not even one on its nodes: None "
        "stands for what the log does not say": [
            reading(unknown=lambda s: [][0]),
            reading(unknown=lambda s: re.search("x", "")[0]),
            reading(unknown=lambda s: re.search("x", "").group()),
            reading(unknown=lambda s: re.search("x", "").groups()),
            reading(unknown=lambda s: s - None),
            reading(unknown=lambda s: None - s),
        ],
    },
    otherwise="return a dictionary for each round, with the keys round, sampled, "
    "results, failures, missing, and the numbers that the log says",
)
