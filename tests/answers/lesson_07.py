"""Wrong and right answers to lesson 07's exercises, as learners would write them."""

import re
import shlex

RIGHT = {}
WRONG = {}

# ---------------------------------------------------------------- 7.1 supernode_words


def by_a_shell_line(superlink, partition_id, num_partitions, port, ca=None, key=None):
    if key is not None and ca is None:
        raise ValueError("no TLS")
    line = (
        f"flower-supernode --superlink {superlink} --port {port} "
        f'--node-config "partition-id={partition_id} num-partitions={num_partitions}"'
    )
    line += f" --root-certificates {shlex.quote(ca)}" if ca else " --insecure"
    if key:
        line += f" --auth-supernode-private-key {shlex.quote(key)}"
    return shlex.split(line)


def joined_by_equals_signs(
    superlink, partition_id, num_partitions, port, ca=None, key=None
):
    trust = f"--root-certificates={ca}" if ca else "--insecure"
    words = [
        "flower-supernode",
        trust,
        f"--node-config=num-partitions={num_partitions} partition-id={partition_id}",
        f"--port={port}",
        f"--superlink={superlink}",
    ]
    if key and not ca:
        raise ValueError(key)
    return (*words, f"--auth-supernode-private-key={key}") if key else tuple(words)


RIGHT["7.1"] = [by_a_shell_line, joined_by_equals_signs]

# ------------------------------------------------------------------------ 7.2 diagnose


def by_matching(log):
    let_in = re.search(r"SuperNode ID: \d+", log)
    code = re.search(r"\[code: (\d+)\]", log)
    why = re.search(r"certificate verify failed: (\w+)", log)
    match (bool(let_in), code and code[1], why and why[1]):
        case (True, _, _):
            return "nothing"
        case (_, "2004", _):
            return "unregistered key"
        case (_, "2001", _):
            return "no key"
        case (_, _, "certificate"):
            return "expired certificate"
        case (_, _, "unable"):
            return "wrong CA"
    plain = re.search(r"insecure channel(.|\n)*attempt failed", log)
    return "no TLS" if plain else "nothing"


RIGHT["7.2"] = [by_matching]

# --------------------------------------------------------------------- 7.3 read_rounds

KEYS = ["round", "sampled", "results", "failures", "missing"]


def by_one_expression_each(log):
    rounds = []
    for part in log.split("[ROUND ")[1:]:
        sampled = re.findall(r"configure_train: Sampled (\d+)", part)
        replied = re.findall(r"aggregate_train: Received (\d+)\D+(\d+)", part)
        numbers = [int(part[: part.index("/")]), int(sampled[0]) if sampled else None]
        if replied:
            results, failures = (int(text) for text in replied[0])
            numbers += [results, failures, numbers[1] - results - failures]
        else:
            numbers += [None] * 3
        rounds.append(dict(zip(KEYS, numbers, strict=True)))
    return rounds


def word_by_word(log):
    rounds = []
    for line in log.splitlines():
        words = line.split()
        if "[ROUND" in words:
            row = dict.fromkeys(KEYS)
            row["round"] = int(words[-1].split("/")[0])
            rounds.append(row)
        if "configure_train:" in words:
            row["sampled"] = int(words[words.index("Sampled") + 1])
        if "aggregate_train:" in words:
            at = words.index("Received")
            row["results"], row["failures"] = int(words[at + 1]), int(words[at + 4])
            row["missing"] = row["sampled"] - row["results"] - row["failures"]
    return rounds


def reading(
    sampled=r"configure_train: Sampled (\d+)",
    replied=r"aggregate_train: Received (\d+) results and (\d+) failures",
    number=int,
    missing=lambda sampled, results, failures: sampled - results - failures,
    change=lambda rounds: rounds,
    unknown=None,
):
    """Make an answer that is right but for a part of it."""

    def answer(log):
        rounds = []
        for line in log.splitlines():
            if found := re.search(r"\[ROUND (\d+)/", line):
                rounds.append(dict.fromkeys(KEYS, unknown))
                rounds[-1]["round"] = number(found[1])
            elif found := re.search(sampled, line):
                rounds[-1]["sampled"] = number(found[1])
            elif found := re.search(replied, line):
                results, failures = number(found[1]), number(found[2])
                asked = rounds[-1]["sampled"]
                rounds[-1]["results"], rounds[-1]["failures"] = results, failures
                rounds[-1]["missing"] = missing(asked, results, failures)
        return change(rounds)

    return answer


def by_zip(log):
    asked = re.findall(r"configure_train: Sampled (\d+)", log)
    replied = re.findall(r"aggregate_train: Received (\d+)\D+(\d+)", log)
    return [
        {
            "round": i,
            "sampled": int(a),
            "results": int(r),
            "failures": int(f),
            "missing": int(a) - int(r) - int(f),
        }
        for i, (a, (r, f)) in enumerate(zip(asked, replied, strict=False), start=1)
    ]


def by_zip_strictly(log):
    rounds = by_zip(log)
    if len(rounds) < log.count("[ROUND "):
        raise IndexError("list index out of range")
    return rounds


def carries_over(log):
    rounds, numbers = [], (None, None, None)
    for row in by_one_expression_each(log):
        if row["results"] is not None:
            numbers = (row["results"], row["failures"], row["missing"])
        rounds.append(row | dict(zip(KEYS[2:], numbers, strict=True)))
    return rounds


def as_generator(log):
    yield from by_one_expression_each(log)


def swapped(rounds):
    return [
        row | {"results": row["failures"], "failures": row["results"]} for row in rounds
    ]


def evaluation_apart(log):
    rows = []
    for row in by_one_expression_each(log):
        rows += [row, row] if "evaluate: Sampled" in log else [row]
    return rows


def missing_whoever_was_sampled(rounds):
    return [
        row | ({"missing": row["sampled"]} if row["results"] is None else {})
        for row in rounds
    ]


RIGHT["7.3"] = [by_one_expression_each, word_by_word, reading()]
WRONG["7.3"] = [
    (
        reading(sampled=r"Sampled (\d+)", replied=r"Received (\d+)\D+(\d+) failures"),
        "these numbers are of the evaluation",
    ),
    (
        reading(sampled=r"train: Sampled \d+ nodes \(out of (\d+)"),
        "these are all nodes",
    ),
    (
        reading(missing=lambda sampled, results, failures: sampled - results),
        "a failure is an answer, too",
    ),
    (reading(change=swapped), "results and failures are mixed up"),
    (
        reading(
            sampled=r"configure_train: Sampled (\d)",
            replied=r"train: Received (\d)\d* results and (\d)",
        ),
        "more than one digit",
    ),
    (
        reading(
            missing=lambda sampled, results, failures: results + failures - sampled
        ),
        "this should be another number: missing",
    ),
    (
        reading(number=str, missing=lambda s, r, f: f"{int(s) - int(r) - int(f)}"),
        "these are texts",
    ),
    (
        reading(change=lambda rounds: [r | {"round": r["round"] - 1} for r in rounds]),
        "numbered from 1",
    ),
    (reading(unknown=0), "None, also for missing"),
    (reading(change=missing_whoever_was_sampled), "None, also for missing"),
    (carries_over, "None, also for missing"),
    (by_zip, "a round that has no line on its results is missing"),
    (by_zip_strictly, "a round has no line on its results"),
    (evaluation_apart, "leave the evaluation out"),
    (
        reading(change=lambda rounds: [list(r.values()) for r in rounds]),
        "a list of dictionaries",
    ),
    (
        reading(change=lambda rounds: {r["round"]: r for r in rounds}),
        "should return a list",
    ),
    (
        reading(change=lambda rounds: [r | {"of": 2} for r in rounds]),
        "should have the keys",
    ),
    (
        reading(change=lambda rounds: rounds[-1:]),
        "this log has 2 round(s), and the result 1",
    ),
    (reading(change=lambda rounds: None), "returned None"),
    (as_generator, "should return a list"),
]
