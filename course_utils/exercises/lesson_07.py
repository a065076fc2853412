"""Lesson 07's exercises."""

import argparse
import random
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from course_utils.exercises.engine import Attempt, Case, Exercise, Wrong, require_kind

# ----------------------------------------------------------------- 7.1 supernode_words

AUTH = "--auth-supernode-private-key"
OPTIONS = ("--superlink", "--port", "--node-config", "--root-certificates", AUTH)


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
    yield "quotes inside a word", any(mark in word for word in got for mark in "'\"")
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


def command(link: str, i: int, n: int, port: int, ca: Any, key: Any) -> list[str]:
    """Return the words of the command: the oracle."""
    if key and not ca:
        raise ValueError("There is no TLS.")
    data = f"partition-id={i} num-partitions={n}"
    words = ["flower-supernode", "--superlink", link, "--port", str(port)]
    words += ["--node-config", data]
    words += ["--root-certificates", ca] if ca else ["--insecure"]
    words += ["--auth-supernode-private-key", key] if key else []
    return words


def random_command(rng: random.Random) -> Case:
    """Draw what to say in a command."""
    parts, port = rng.randint(2, 400), rng.randint(1024, 65535)
    trust = rng.choice([(None, None), (f"{parts}.pem", None), ("ca.pem", f"k-{parts}")])
    host = f"10.{rng.randrange(256)}.{rng.randrange(256)}.1:{rng.randint(1024, 65535)}"
    return Case(host, rng.randrange(parts), parts, port, *trust)


LAN, KEY = "192.168.0.7:9092", "keys/supernode-0"

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
    oracle=command,
    mistakes="""
        a file's name may hold spaces: put it into the list as it is, do not split it
            return words -> return words[:7] + " ".join(words[7:]).split()
        --node-config takes one word with a space in it, and here are two
            data] -> *data.split()]
        an option and its value are two words (or one with =), not one with a space
            "--port", str(port) -> f"--port {port}"
        --port is the SuperNode's own, not that of the SuperLink
            str(port) -> link.split(":")[1]
        --insecure says without TLS, --root-certificates says with it: Flower refuses
        both together
            ca] if ca else -> ca] * bool(ca) +
        --ssl-ca-certfile is for calls to this SuperNode: the CA of the SuperLink's
        certificate is --root-certificates
            --root-certificates -> --ssl-ca-certfile
        no key is given here, so there is no --auth-supernode-private-key
            key] if key else [] -> str(key)]
        a key without TLS ends a SuperNode at once: raise a ValueError
            key and not ca -> False
        only a key without a CA is refused: here is nothing to raise a ValueError for
            key and not ca -> not ca
            key and not ca -> key
            key and not ca -> ca and not key
    """,
    otherwise={
        "a list": "return a list of words, not one str: no shell takes it apart",
        "kinds of words": "each word is a str: str(...) makes one of a number, * "
        "unpacks a list, and options that are not used are left out",
        "inside a word": "there are quotes inside a word: they are for a shell, which "
        "removes them, and no shell reads this list",
        "program": "the first word is the program's name, flower-supernode",
        "not understood": "flower-supernode does not know these, or nobody has asked "
        "for them",
        "no --superlink": "--superlink is missing: which SuperLink is it to join?",
        "no --port": "--port is missing: without it, all SuperNodes of a machine want "
        "the same one",
        "no --node-config": "--node-config is missing: it says which data are here",
        "no --root-certificates": "here is a CA: --root-certificates names it",
        "no --insecure": "without a CA the SuperNode must be told so: --insecure",
        "no -key": "here is a key: --auth-supernode-private-key names it",
        "--superlink": "--superlink takes host:port, both as they were given, without "
        "http:// or https://",
        "--node-config": "--node-config takes partition-id=… and num-partitions=…, "
        "with hyphens, each with its own number, and a space between them",
        "": "this option says something else than was given",
    },
)

# ------------------------------------------------------------------------- 7.2 diagnose


INSECURE = "WARNING :   Option `--insecure` was set. Starting insecure channel to "
INSECURE += "127.0.0.1:9092.\n"
NO_CA = "INFO :      Using system certificates for TLS connection\n"


def start(said: str = "", port: int = 9095) -> str:
    """Return what a SuperNode prints first, and what it says of TLS."""
    return (
        f"INFO :      Starting Flower SuperNode\n{said}"
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
RETRY = "WARNING :   Connection attempt failed, retrying in {} seconds\n"
RETRIES = "".join(map(RETRY.format, ("0.61", "0.44", "3.02")))
GIVES_UP = "WARNING :   Giving up reconnection after 2.43 seconds and 3 tries.\n"
CUT_OFF = GIVES_UP + refusal("Server disconnected without sending a response.")
NOBODY = GIVES_UP + refusal("All connection attempts failed")
CONNECTED = "INFO :      Connection successful after 9.67 seconds and 5 tries.\n"
LET_IN = "INFO :      SuperNode ID: 17344450183926050190\n"
MARKS = ("[code", "[SSL", "SuperNode ID", "attempt failed", "certificates", "--insec")


def log(what: str, text: str, cause: str = "nothing") -> Case:
    """Make a case of a SuperNode's log, of which the most telling line is shown."""
    lines = text.splitlines() or [text]
    telling = next((line for m in MARKS for line in lines if m in line), lines[-1])
    return Case(text, gives=cause, shown={f"log of a SuperNode that {what}": telling})


PLAIN = start(INSECURE)
LOGS = [
    log("trusts another CA", start() + WRONG_CA, "wrong CA"),
    log("was given no CA", start(NO_CA) + WRONG_CA, "wrong CA"),
    log("meets an expired certificate", start() + EXPIRED, "expired certificate"),
    log("has an unknown key", start(port=42001) + UNREGISTERED, "unregistered key"),
    log("shows no key", start(port=42004) + NO_KEY, "no key"),
    log("speaks plain HTTP to TLS", PLAIN + RETRY.format("0.61"), "no TLS"),
    log("speaks plain HTTP to TLS and gives up", PLAIN + RETRIES + CUT_OFF, "no TLS"),
    log("has said nothing yet", ""),
    log("was let in", start(port=42004) + LET_IN),
    log("has just been started without TLS", PLAIN),
    log("was let in without TLS", PLAIN + LET_IN),
    log("waits for a SuperLink", start(port=42004) + RETRIES),
    log("finds no SuperLink", start(port=42001) + RETRIES + NOBODY),
    log("waits, trusting its system's CAs", start(NO_CA) + RETRIES),
    log("is let in late", PLAIN + RETRIES + CONNECTED + LET_IN),
    log("has lost its SuperLink", PLAIN + LET_IN + RETRIES),
    log("was refused, then let in", start() + UNREGISTERED + start() + LET_IN),
    log("came back too soon", start() + LET_IN + start() + UNREGISTERED),
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


def look(log: str) -> str:
    """Look for one sign after the other: the oracle."""
    signs = SIGNS
    if "SuperNode ID:" in log:
        return "nothing"
    for sign, cause in signs.items():
        if sign in log:
            return cause
    if "--insecure" in log and "attempt failed" in log:
        return "no TLS"
    return "nothing"


DIAGNOSIS = Exercise(
    "7.2",
    "you can say why a SuperNode stays out, from its log alone.",
    cases=LOGS,
    draw=random_log,
    oracle=look,
    mistakes="""
        the word certificate stands in several logs, in small letters or capitals: look
        for all of 'certificate has expired' or 'unable to get local issuer certificate'
            = SIGNS -> = {"[SSL": "wrong CA"} | SIGNS
            = SIGNS -> = {"certificate": "expired certificate"} | SIGNS
            = SIGNS -> = SIGNS | {"certificate": "expired certificate"}
        a port may have the digits of a code in it: look for all of [code: 2001] and
        [code: 2004]
            = SIGNS -> = {"2004": "unregistered key", "2001": "no key"} | SIGNS
            = SIGNS -> = {"2001": "no key", "2004": "unregistered key"} | SIGNS
        [code: 2004] is a key that nobody registered, [code: 2001] is no key: these two
        differ
            = SIGNS -> = {"[code": "unregistered key"} | SIGNS
            = SIGNS -> = {"[code": "no key"} | SIGNS
        this SuperNode was let in, once at least: its log says SuperNode ID, and what
        else it says is over or will pass
            "SuperNode ID:" in log -> False
            "SuperNode ID:" -> "Connection successful"
        --insecure is no fault by itself: look for attempts that failed, too, and for a
        SuperNode ID
             and "attempt failed" in log ->
        attempts that failed are no refusal by themselves: the SuperLink may not be
        there yet, and only --insecure says that there is no TLS
            "--insecure" in log and ->
        it was started with --insecure, and its attempts fail: that is all a SuperNode
        says that speaks plain HTTP to TLS, for ever if there are no --max-retries
            "attempt failed" -> "handshake error"
            = SIGNS -> = SIGNS | {"Server disconnected": "nothing"}
    """,
    otherwise="return what the log says, letter by letter one of 'wrong CA', 'expired "
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
ERROR = """\
\t> Received error in reply from node 3387737867232134911: <class 'ValueError'>:\
<'No partition 7: there are 3, numbered from 0.'>"""
CUT = "│ Connection to the SuperLink is unavailable. Please check your network."


def entry(*values: int | None) -> dict[str, Any]:
    """Return what is to be said of a round."""
    return dict(zip(KEYS, values, strict=True))


def lines_of(*counts: int | None) -> Iterator[str]:
    """Yield what ``flwr run --stream`` prints of a round, as far as it came."""
    sampled, nodes, results, failures, evaluated = (*counts, *[None] * 5)[:5]
    if not sampled:
        yield "Waiting for nodes to connect: 1 connected (minimum required: 3)."
    else:
        yield f"configure_train: Sampled {sampled} nodes (out of {nodes})"
    if results is not None:
        yield f"aggregate_train: Received {results} results and {failures} failures"
        yield ERROR * min(failures, 1)
        yield "\t└──> Aggregated MetricRecord: {'train-loss': 1.3238706059045}"
    if evaluated:
        yield f"configure_evaluate: Sampled {evaluated} nodes (out of 400)"
        yield f"aggregate_evaluate: Received {evaluated - 1} results and 1 failures"


def log_of(*run: tuple, **gives: list[dict]) -> Case:
    """Make a case of the log of a run, which breaks off if its last round does."""
    lines = HEAD.splitlines()
    for number, counts in enumerate(run, 1):
        lines += ["", f"[ROUND {number}/{len(run)}]", *lines_of(*counts)]
    text = "\n".join(f"INFO :      {line}" for line in lines)
    if not run or len(run[-1]) < 4:
        text += f"\n{CUT}"
    told = [line for line in lines if line.startswith(("[R", "configure", "aggregate"))]
    return Case(f"{text}\n", shown={"log": "; ".join(told) or "no round"}, **gives)


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


def numbers(part: str, phase: str = "train", which: int = 0) -> list[int | None]:
    """Return sampled, all nodes, results and failures, as far as a round's log goes."""
    asked = re.findall(rf"{phase}: Sampled (\d+) nodes \(out of (\d+)", part)
    replied = re.findall(rf"{phase}: Received (\d+) results and (\d+)", part)
    pairs = [f[which] if f else (None, None) for f in (asked, replied)]
    return [n and int(n) for pair in pairs for n in pair]


def read(log: str) -> list[dict]:
    """Read a log, round by round: the oracle."""
    rows: list[dict] = []
    for part in log.split("[ROUND ")[1:]:
        number = int(part.split("/")[0])
        s, _of, r, f = numbers(part)
        rest = None, None, None
        if r is not None:
            rest = r, f, s - r - f
        rows.append(entry(number, s, *rest))
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
        log_of((4, 4, None, 0, 3), (4, 4, 4, 0, 3)),
        log_of(gives=[]),
    ],
    draw=random_run,
    oracle=read,
    mistakes=r"""
        these numbers are of the evaluation: read the lines of training only
            numbers(part) -> numbers(part, "", -1)
            numbers(part) -> numbers(part, "", 0)
        these are all nodes: sampled is the number before (out of ...)
            s, _of, r, f = -> _of, s, r, f =
            (number, s, -> (number, _of,
        missing is who was sampled and has sent neither a result nor a failure: sampled
        minus results minus failures
            s - r - f -> _of - r - f
            s - r - f -> s - r
            s - r - f -> r + f - s
        results and failures are mixed up
            s, _of, r, f = -> s, _of, f, r =
        a number may have more than one digit: \d+ finds them all
            numbers(part) -> [n and int(str(n)[0]) for n in numbers(part)]
        these are texts: int(...) makes numbers of them
            entry(number, s, *rest) -> entry(*map(str, (number, s, *rest)))
            entry(number, s, *rest) -> entry(*map(str, (number, s, *rest[:2])), rest[2])
        here a round has no line on its results, or not even one on its nodes: None
        stands for what the log does not say, also for missing, and not 0 or what was
        read before
            None, None, None -> 0, 0, 0
            None, None, None -> 0, 0, s
            None, None, None -> None, None, 0
            None, None, None -> None, None, s
            None, None, None -> rest if rows else (None, None, None)
            None, None, None -> r is None and [][0]
            None, None, None -> r is None and re.search("x", "")[0]
            None, None, None -> r is None and re.search("x", "").group()
            None, None, None -> r is None and re.search("x", "").groups()
            None, None, None -> r is None and s - r
            None, None, None -> r is None and r - s
        a round that has no line on its results is missing: it began, all right
            rows.append -> r is None or rows.append
        this is one dictionary, again and again: make a new one for each round
            return rows -> return rows[-1:] * len(rows)
        there is one entry for each round: leave the evaluation out
            return rows -> return [r for r in rows for _ in range(1 + ("uate:" in log))]
    """,
    otherwise="return a list with a dictionary for each round: round, sampled, "
    "results, failures and missing, with the numbers that the log says",
)
