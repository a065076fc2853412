"""Right answers to lesson 07's exercises that are written in other ways."""

import re


def joined_by_equals_signs(superlink, i, n, port, ca=None, key=None):
    if key and not ca:
        raise ValueError(key)
    trust = f"--root-certificates={ca}" if ca else "--insecure"
    data = f"--node-config=num-partitions={n} partition-id={i}"
    words = ("flower-supernode", trust, data, f"--port={port}")
    words += (f"--superlink={superlink}",)
    return (*words, f"--auth-supernode-private-key={key}") if key else words


def by_matching(log):
    let_in = re.search(r"SuperNode ID: \d+", log)
    code = re.search(r"\[code: (\d+)\]", log)
    why = re.search(r"certificate verify failed: (\w+)", log)
    causes = {"2004": "unregistered key", "2001": "no key"}
    causes |= {"certificate": "expired certificate", "unable": "wrong CA"}
    plain = re.search(r"insecure channel(.|\n)*attempt failed", log)
    if let_in or not (code or why or plain):
        return "nothing"
    return causes[(code or why)[1]] if code or why else "no TLS"


def word_by_word(log):
    rounds = []
    for line in log.splitlines():
        words = line.split()
        if "[ROUND" in words:
            keys = ["round", "sampled", "results", "failures", "missing"]
            row = dict.fromkeys(keys)
            row["round"] = int(words[-1].split("/")[0])
            rounds.append(row)
        if "configure_train:" in words:
            row["sampled"] = int(words[words.index("Sampled") + 1])
        if "aggregate_train:" in words:
            at = words.index("Received")
            row["results"], row["failures"] = int(words[at + 1]), int(words[at + 4])
            row["missing"] = row["sampled"] - row["results"] - row["failures"]
    return rounds


RIGHT = {"7.1": [joined_by_equals_signs], "7.2": [by_matching], "7.3": [word_by_word]}
