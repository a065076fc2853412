# %% [markdown] tags=["slide"]
# # 07 · Deployment
#
# **The same app on real machines, of which one crashes, one hangs and one is a
# stranger: does it still end with a model, and how would you know?**
#
# After this lesson you can
#
# - start a SuperLink and SuperNodes, run an app on them, and say which process does
#   what,
# - encrypt a federation with TLS, admit SuperNodes by their keys, and say who may have
#   which file,
# - tell from a log what was refused, and why,
# - predict what a run does when a client raises, hangs or dies, or when the SuperLink
#   does, and find out how many are silently missing,
# - move the same commands to many machines.
#
# **You need:** lessons 00 to 06, and on Windows
# [WSL](https://learn.microsoft.com/windows/wsl/install). **Time:** 95 minutes, 30 of them
# for the exercises. What a first reading does not need is in the appendix, which they
# leave out.

# %% [markdown] tags=["slide"]
# ## The parts
#
# In lesson 06, `flwr run` started a SuperLink in the background, and the clients were
# virtual. Now you start every part yourself:

# %% tags=["slide-more", "slide-output"]
from course_utils.plots import draw_apps

draw_apps()

# %% [markdown]
# - In this lesson all of them run on your machine. Each gets a `FLWR_HOME` of its own,
#   as it would have on a machine of its own, and they talk over the network as always.
# - Every command here is one that you could type in a terminal. This notebook starts
#   them with `Deployment`. It runs each command in one folder, `deployment.folder`,
#   waits until it is ready, keeps its log in a file, and ends all of them at the end, or
#   when the kernel is restarted. A name that is started again ends its earlier process
#   first.
# - The whole notebook takes about four minutes to run.

# %%
from course_utils.deployment import (
    CommandFailed,
    Deployment,
    Process,
    free_port,
    make_certificates,
    make_supernode_key,
)

if old := globals().get("deployment"):  # this cell was run before
    old.stop()
deployment = Deployment()

# %% [markdown] tags=["slide"]
# ### The SuperLink
#
# In a terminal, in the environment of the course, its command is
#
# ```bash
# export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
# flower-superlink --insecure --host 127.0.0.1 --port 9091 --database state.db
# ```
#
# The variable is that of lesson 06: it keeps apps in this environment. (`Deployment`
# sets it.) `--database` is where the SuperLink writes down all that it has to know
# tomorrow: nodes, runs, messages. Without it, they are in its memory only.

# %% [markdown]
# The cell below does the same, on a port that is free. Of each log in this lesson we
# read the lines that matter: `grep` returns those that contain one of its words.

# %% tags=["nbval-ignore-output"]
READY = "Uvicorn running on"  # what it prints then

address = f"127.0.0.1:{free_port()}"
superlink = deployment.start(
    "superlink",
    f"""flower-superlink --insecure --database state.db
        --host 127.0.0.1 --port {address.split(":")[1]}""",
    ready=READY,
)
print(superlink.grep("WARNING", "Starting the SuperLink"))

# %% [markdown]
# - Two warnings, and both are right: nothing is encrypted, and whoever calls is let in.
#   Section "Encrypted" mends the one, section "By key" the other.
# - Three interfaces (APIs) on one port: **Fleet** is for SuperNodes, **Control** for the
#   command `flwr`, **Runtime** for the process that runs your ServerApp (a name of this
#   interface, not one of the runtimes of lesson 03).

# %% [markdown] tags=["slide-more"]
# ### The SuperNodes
#
# ```bash
# flower-supernode --insecure --superlink 127.0.0.1:9091 --port 9094 \
#     --node-config "partition-id=0 num-partitions=3"
# ```
#
# `--node-config` says which data the machine has: the ClientApp finds it in
# `context.node_config` (lesson 04). `--port` is only for this SuperNode's own helpers.
# Three SuperNodes on one machine need three; on a machine of its own, leave it out.


# %% tags=["nbval-ignore-output"]
def start_supernode(i: int) -> Process:
    return deployment.start(
        f"supernode-{i}",
        f"""flower-supernode --insecure
            --superlink {address} --port {free_port()}
            --node-config "partition-id={i} num-partitions=3" """,
    )


supernodes = [start_supernode(i) for i in range(3)]
for node in supernodes:
    node.wait_for("SuperNode ID")
    print(node.grep("SuperNode ID"))

# %% [markdown]
# Each has called the SuperLink, which gave it an id. From now on it asks every three
# seconds whether there is a message for it.

# %% [markdown] tags=["slide"]
# ### The command `flwr`
#
# It is a third party: it may run on any machine that reaches the SuperLink, and finds
# its address in `config.toml` in its `FLWR_HOME` (`~/.flwr`, in your terminal):

# %% tags=["slide-more", "slide-output", "nbval-ignore-output"]
config_file = deployment.connect(address, name="course")
print(config_file.read_text())

# %% [markdown]
# `course` is the name that we give this connection. Who is there?
#
# ```bash
# flwr supernode list course
# ```

# %% tags=["nbval-ignore-output"]
nodes = deployment.flwr("supernode list course")
print(nodes)
assert nodes.count("online") == 3

# %% [markdown]
# ## One app, three runtimes, one model
#
# The app is that of lesson 06, in the folder `flower_app`, and not a line of it changes.
# In a terminal:
#
# ```bash
# flwr run flower_app course --stream --run-config \
#   "num-server-rounds=2 fraction-train=1.0 fraction-evaluate=0.0 min-available-nodes=3"
# ```
#
# All three train in both rounds, and nobody evaluates: that saves time here. Further
# runs follow, so the command goes into a function. Each run saves its model in a folder
# of its own:

# %%
from pathlib import Path

import course_utils

APP = Path(course_utils.__file__).parents[1] / "notebooks" / "flower_app"
assert APP.is_dir(), "This lesson needs a clone of the course's repository."
BRIEF = "fraction-train=1.0 fraction-evaluate=0.0 min-available-nodes=3"


def submit(name: str, rounds: int = 1, deadline: float = 600.0) -> Process:
    """Submit the app, and return `flwr run`, which prints the log."""
    config = f"{BRIEF} num-server-rounds={rounds} round-timeout={deadline}"
    config += f" results-dir='results/{name}'"
    words = ["flwr", "run", str(APP), "course", "--stream"]
    words += ["--run-config", config]
    return deployment.start(name, words, ready="Successfully started run")


# %% [markdown]
# We want to look at the processes while a client trains. Every ClientApp that starts
# says so in its SuperNode's log, and that can be waited for:

# %%
START = "Start `flwr-clientapp` process"


def submit_and_wait_for(
    node: Process, name: str, rounds: int = 1, deadline: float = 600.0
) -> Process:
    """Submit the app, and wait until a SuperNode's ClientApp has started."""
    earlier = node.log().count(START)
    run = submit(name, rounds, deadline)
    node.wait_for(START, times=earlier + 1, timeout=600)
    return run


# %% [markdown] tags=["slide"]
# **Predict:** the SuperLink and the three SuperNodes are four processes. Which others are
# there in the middle of a round, and which of all run *your* code? (You will miss one
# kind.)

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
from collections import Counter

node = deployment.processes["supernode-0"]
run = submit_and_wait_for(node, "first-run", rounds=2)
processes = deployment.tree()  # each below the one that has started it
print("\n".join(processes))

programs = Counter(line.strip() for line in processes)
assert programs["flower-superlink"] == 1 and programs["flower-supernode"] == 3
assert programs["flower-superexec"] == 4
assert programs["flwr-serverapp"] >= 1 and programs["flwr-clientapp"] >= 1

# %% [markdown] tags=["slide", "title: What runs where"]
# | process | where | it | lives |
# |---|---|---|---|
# | `flower-superlink` | server | keeps the state, passes messages on | until stopped |
# | `flower-superexec` | server | starts a process for each run | until stopped |
# | `flwr-serverapp` | server | **runs your ServerApp** | one run |
# | `flower-supernode` | client | fetches messages, sends replies | until stopped |
# | `flower-superexec` | client | starts a process for each message | until stopped |
# | `flwr-clientapp` | client | **runs your ClientApp** | one message |
# | `flwr` | anywhere | submits the app, then prints the run's log | one command |
#
# Thirteen at most. Eight are there all the time, and do not know your app. Your code runs
# in processes that come and go. (You may see fewer than three ClientApps: each SuperNode
# asks for its message at a time of its own.)

# %% [markdown]
# Wait until the run is over, and read its rounds. Of the log of a run we keep what says
# who took part:

# %% tags=["nbval-ignore-output"]
import re

ROUNDS = ("[ROUND", "Waiting for", "configure_train", "aggregate_", "error in")
run.wait(timeout=600)
print(run.grep(*ROUNDS))
took = float(re.search(r"finished in ([\d.]+)s", run.log())[1])
print(f"{took / 2:.0f} seconds a round")

# %% [markdown]
# And was it a new process for each message? SuperNode 0 had two messages:

# %% tags=["nbval-ignore-output"]
log = node.log()
print("received:", log.count("Receiving: train"), "started:", log.count(START))
assert log.count(START) == log.count("Receiving: train") >= 2
print(node.grep("Successfully installed"))

# %% [markdown]
# So a global variable of the ClientApp has no second round in which to be found: that is
# why lesson 04 kept state in `context.state`. And here a message costs seconds: up to
# three until the SuperNode asks, then a new Python that imports PyTorch.
#
# The last lines say where the code came from. The **app travels**: the SuperNode has
# unpacked it into its own `FLWR_HOME`. What the app imports does not: PyTorch has to be
# installed on the SuperNode's machine.

# %% [markdown]
# And its model? Lesson 06 found the same in the notebook's process as on the Simulation
# Runtime, to a hundred-thousandth. So it is here: **one app, three runtimes, one
# model.** The app seeds each client's batches by the run's seed, the round and the
# partition, so it does not matter where a client trains. The appendix compares. For
# that, keep the model:

# %%
import torch

results = deployment.folder / "results"
there = torch.load(results / "first-run" / "final_model.pt")

# %% [markdown]
# ## Encrypted
#
# This federation has done its work. The next one is to be safe:

# %%
deployment.stop()
deployment = Deployment()

# %% [markdown] tags=["slide"]
# **TLS** is what a browser does with `https`. It encrypts, and it proves to the caller
# that the server is the one that was called. The proof is a **certificate**: a file that
# says "this public key belongs to the server with these names", signed by a
# **certificate authority (CA)** that the caller trusts. A federation can be its own CA:

# %%
TLS = make_certificates(deployment.folder / "tls")
for name, path in TLS.items():
    print(f"{name:5} {path.name}")

# %% [markdown] tags=["slide-more"]
# | file | what it is | who may have it |
# |---|---|---|
# | `ca.pem` | the CA's certificate, to check signatures by | everyone |
# | `cert.pem` | the server's certificate | everyone |
# | `key.pem` | the server's private key | **the server alone** |
#
# - Each SuperNode and each `flwr` needs `ca.pem`. The server shows `cert.pem` to each
#   caller. Who has `key.pem` can pretend to be the server.
# - A fourth one is missing with intent: the CA's own private key, which signed. Who has
#   it can make certificates that everyone here believes. `make_certificates` forgets it.

# %% [markdown]
# The certificate names the server by the address *by which it is called*, letter for
# letter. Its names and addresses are its **SAN** (subject alternative names). 127.0.0.1
# must always be among them, because the SuperLink's own SuperExec calls it so:
# `make_certificates` adds it, and `localhost`, to whatever you ask for.
#
# A certificate has an end, too. This one is valid for a week. Then all three files are
# made anew, and everyone needs the new `ca.pem`.

# %% [markdown] tags=["slide"]
# ## By key
#
# TLS says who the server is. It does not say who calls: whoever has `ca.pem`, and that
# is everyone, could join as a SuperNode and send any model. So each SuperNode gets a
# **key pair**, and the SuperLink admits those whose public key was registered.
#
# ```bash
# ssh-keygen -t ecdsa -b 384 -N "" -f key-0   # makes key-0 and key-0.pub
# ```
#
# | file | who may have it |
# |---|---|
# | `key-0` | **this SuperNode alone.** It is made there, and never leaves |
# | `key-0.pub` | everyone. Whoever runs the SuperLink registers it |

# %% [markdown] tags=["slide-more"]
# First the SuperLink, with four options more, and `--insecure` gone:
#
# ```bash
# flower-superlink --host 127.0.0.1 --port 9091 --database state.db \
#     --ssl-ca-certfile ca.pem --ssl-certfile cert.pem --ssl-keyfile key.pem \
#     --enable-supernode-auth
# ```


# %% tags=["nbval-ignore-output"]
def superlink_command(address: str, tls: str = "tls") -> str:
    return f"""flower-superlink --host 127.0.0.1 --port {address.split(":")[1]}
        --ssl-ca-certfile {tls}/ca.pem --ssl-certfile {tls}/cert.pem
        --ssl-keyfile {tls}/key.pem --enable-supernode-auth"""


address = f"127.0.0.1:{free_port()}"
SUPERLINK = f"{superlink_command(address)} --database state.db"
superlink = deployment.start("superlink", SUPERLINK, ready=READY)
assert "WARNING" not in superlink.log()
print(deployment.connect(address, TLS["ca"]).read_text())

# %% [markdown]
# Both warnings are gone, and `flwr` has got the CA in place of `insecure = true`. Now
# three keys, made and registered. (`make_supernode_key` does what the command
# `ssh-keygen` above does.)
#
# ```bash
# flwr supernode register key-0.pub course
# ```

# %% tags=["nbval-ignore-output"]
registering = []
for i in range(3):
    make_supernode_key(deployment.folder / "keys" / f"key-{i}")
    command = f"flwr supernode register keys/key-{i}.pub course"
    registering.append(deployment.start(f"register-{i}", command))
for one in registering:
    assert one.wait() == 0
    print(one.grep("registered"))

# %% [markdown]
# And a SuperNode has two options more: by `ca.pem` it knows the server, by its private
# key the server knows it.
#
# ```bash
# flower-supernode --superlink 127.0.0.1:9091 --root-certificates ca.pem \
#     --auth-supernode-private-key key-0 --node-config "partition-id=0 num-partitions=3"
# ```


# %%
def supernode_command(
    address: str, key: str, partition_id: int = 0, ca: str = "tls/ca.pem"
) -> str:
    return f"""flower-supernode --superlink {address} --port {free_port()}
        --root-certificates {ca} --auth-supernode-private-key keys/{key}
        --node-config "partition-id={partition_id} num-partitions=3" """


LET_IN = "SuperNode ID"  # what a SuperNode prints then


def start_supernode(
    i: int, partition_id: int | None = None, ready: str | None = LET_IN
) -> Process:
    partition_id = i if partition_id is None else partition_id
    command = supernode_command(address, f"key-{i}", partition_id)
    return deployment.start(f"supernode-{i}", command, ready=ready)


# %% tags=["nbval-ignore-output"]
for node in [start_supernode(i, ready=None) for i in range(3)]:
    node.wait_for(LET_IN)
print(deployment.flwr("supernode list course"))

# %% [markdown] tags=["slide", "title: What keys change"]
# All three are let in. TLS and keys decide who may talk, and change nothing of what is
# said: runs go as before, as you will see below.
#
# > **What this does not protect.** Flower, as you have installed it, has no passwords:
# > whoever reaches the SuperLink's port and has `ca.pem` can register a key, as you have
# > just done, or submit an app, which then runs on every SuperNode. So a key tells *who*
# > sends, and keeps out only those who do not register one themselves. To keep strangers
# > out, let only the participants' addresses through the server's firewall. And a
# > SuperNode with a key may still send a wrong model: a key says *who*, not *what*.

# %% [markdown]
# ### Exercise 7.1: the command of a SuperNode
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 4 | whoever joins your federation types this command |
#
# Complete `supernode_words`: return the words of the command that starts a SuperNode,
# as a list of str, like `words` in `submit`; the order of the options is free.
# `superlink` is the SuperLink's address, `port` the
# SuperNode's own port. Without `root_certificates` there is no TLS. A `private_key`
# without TLS is refused by Flower: raise a `ValueError` then.
#
# <details><summary>Hint 1</summary>
#
# The words of `program --option value` are `["program", "--option", "value"]`, and all
# of them are str.
# </details>
# <details><summary>Hint 2</summary>
#
# In a terminal, quotes keep `"partition-id=0 num-partitions=3"` together. In a list it
# is one word anyway, and quotes would be a part of it.
# </details>

# %%
from course_utils.exercises import check


def supernode_words(
    superlink: str,
    partition_id: int,
    num_partitions: int,
    port: int,
    root_certificates: str | None = None,
    private_key: str | None = None,
) -> list[str]:
    """Return the words of the command that starts a SuperNode."""
    ### BEGIN SOLUTION
    if private_key and not root_certificates:
        raise ValueError("A key proves nothing without TLS.")
    words = ["flower-supernode", "--superlink", superlink, "--port", str(port)]
    data = f"partition-id={partition_id} num-partitions={num_partitions}"
    words += ["--node-config", data]
    if private_key:
        words += ["--auth-supernode-private-key", private_key]
    if root_certificates:
        return [*words, "--root-certificates", root_certificates]
    return [*words, "--insecure"]
    ### END SOLUTION


# %%
check("7.1", supernode_words)

# %% [markdown] tags=["solution"]
# **Why this.** A program gets a list of words, and a shell is only one way to make it.
# Made directly, a file's name may hold spaces or quotes, and nothing has to be escaped.
# **What people get wrong:** they keep the shell's quotes, which become a part of the
# word; they write a number that is no str; or they take the SuperLink's port for
# `--port`, which is one of the SuperNode's own, for its helpers.

# %% [markdown]
# ## What is refused
#
# Four times something is wrong. What does the SuperNode say? It is started as above, but
# with `--max-retries 1`, to be on the safe side: the first three end at once without it,
# too. The process ends with exit code 1. (`Exit Code: 305`, in its log, is Flower's own
# number for the reason.)


# %%
def refused(name: str, command: str) -> Process:
    """Start a SuperNode that will be refused, and wait until it has ended."""
    stranger = deployment.start(name, f"{command} --max-retries 1")
    assert stranger.wait(timeout=300) == 1
    return stranger


# %% [markdown]
# **1. A key that nobody registered.** A stranger has `ca.pem`, and makes a key pair:

# %% tags=["nbval-ignore-output"]
make_supernode_key(deployment.folder / "keys" / "unknown")
stranger = refused("unknown", supernode_command(address, "unknown"))
print(stranger.grep("Exit Code", "Failed", "[code"))
assert "[code: 2004] Failed to activate SuperNode." in stranger.log()
print(superlink.grep("ApiError:2004"))
assert "No SuperNode found with the given public key." in superlink.log()

# %% [markdown]
# To the stranger the SuperLink does not say why. Its own log does: those are the last
# lines.
#
# **2. The wrong CA.** The key is fine this time, but the SuperNode trusts another CA.
# So it is the *SuperNode* that refuses: for all it knows, somebody pretends to be the
# server.

# %% tags=["nbval-ignore-output"]
OTHER = make_certificates(deployment.folder / "other")
command = supernode_command(address, "key-0", ca="other/ca.pem")
stranger = refused("wrong-ca", command)
print(stranger.grep("Exit Code", "Failed", "SSL"))
assert "unable to get local issuer certificate" in stranger.log()

# %% [markdown]
# Without `--root-certificates` it says the same: then it trusts the CAs that its
# computer trusts, and ours is not among them.
#
# **3. A certificate that has expired.** This one is a day too old. **Predict:** who
# notices, the SuperLink when it starts, or the SuperNode when it calls?

# %% tags=["nbval-ignore-output"]
make_certificates(deployment.folder / "old", days=-1)
old_address = f"127.0.0.1:{free_port()}"
command = superlink_command(old_address, tls="old")
old_superlink = deployment.start("old-superlink", command, ready=READY)
command = supernode_command(old_address, "key-0", ca="old/ca.pem")
stranger = refused("expired", command)
print(stranger.grep("Exit Code", "Failed", "SSL"))
assert "certificate has expired" in stranger.log()
old_superlink.wait_for("certificate has expired", timeout=300)
print(old_superlink.tail(1))
old_superlink.stop()

# %% [markdown]
# The SuperNode. The SuperLink started without a word. But then its own SuperExec called
# it, and died of the same error: those are the last lines. So no ServerApp would ever
# start there.
#
# **4. Plain HTTP to a SuperLink with TLS.** Somebody forgot the certificates and typed
# `--insecure`. This time without `--max-retries`, as one usually types it. **Predict:**
# which error will it show?

# %% tags=["nbval-ignore-output"]
PLAIN = f"""flower-supernode --insecure --superlink {address}
    --port {free_port()} --node-config "partition-id=0 num-partitions=3" """
stranger = deployment.start("plain", PLAIN)
stranger.wait_for("Connection attempt failed", times=2)
print(stranger.grep("WARNING"))
assert stranger.is_running
stranger.stop()

# %% [markdown]
# None, and **this goes on for ever.** A SuperNode that does not reach its SuperLink waits
# for better times, and a server that speaks TLS looks to it like one that is not there.
# `--max-retries` or `--max-wait-time` set a limit.
#
# **And `flwr`?** It, too, needs the right CA. **Predict:** does it tell the wrong CA
# from plain HTTP?

# %% tags=["nbval-ignore-output"]
answers = []
for root_certificates in (OTHER["ca"], None):  # None: plain HTTP
    deployment.connect(address, root_certificates)
    try:
        deployment.flwr("list course")
    except CommandFailed as error:
        answers.append(str(error))
deployment.connect(address, TLS["ca"])
print(*answers, sep="\n\n")
assert len(answers) == 2 and len(set(answers)) == 1
assert "Connection to the SuperLink is unavailable." in answers[0]

# %% [markdown]
# No: it has one sentence for both, which speaks of the network. If `flwr` says that the
# SuperLink is unavailable, check address and `root-certificates` in its `config.toml`.
# For the reason, start a SuperNode with the same address and CA, and read its log.

# %% [markdown] tags=["slide"]
# | what is wrong | what you read | where |
# |---|---|---|
# | unregistered key | `[code: 2004] Failed to activate SuperNode.` | SuperNode |
# | | `No SuperNode found with the given public key.` | SuperLink |
# | wrong CA, or none | `unable to get local issuer certificate` | SuperNode |
# | expired certificate | `certificate has expired` | SuperNode, SuperLink |
# | plain HTTP to TLS | `Connection attempt failed, retrying`, for ever | SuperNode |
# | wrong CA, or plain HTTP | `Connection to the SuperLink is unavailable.` | `flwr` |

# %% [markdown] tags=["slide"]
# ### Exercise 7.2: why a SuperNode stays out
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | in a room of thirty, somebody's SuperNode always stays out |
#
# Complete `diagnose`: say from a SuperNode's log what is wrong with it.
#
# | return | if |
# |---|---|
# | `"wrong CA"` | it does not trust the CA of the SuperLink's certificate |
# | `"expired certificate"` | the SuperLink's certificate has expired |
# | `"unregistered key"` | it was refused with `[code: 2004]` |
# | `"no key"` | it shows no key, and the SuperLink wants one |
# | `"no TLS"` | it was started with `--insecure`, and fails to connect |
# | `"nothing"` | none of these, or it was let in at least once (`SuperNode ID:`) |
#
# One of them was not tried above: a SuperNode without a key is refused with
# `[code: 2001]`. Other faults do not stand in the check's logs.
#
# <details><summary>Hint 1</summary>
#
# What was tried above shows what each refusal prints. Look for a part that stands in
# one of them only, and is no bare number: `2004` may be a part of a port.
# </details>
# <details><summary>Hint 2</summary>
#
# Ask first whether it was let in. Then ask for what is refused in so many words.
# </details>
# <details><summary>Hint 3</summary>
#
# `"no TLS"` needs two signs: `--insecure`, and `Connection attempt failed`. One alone is
# no fault: there may be no TLS at all, or no SuperLink yet.
# </details>


# %%
def diagnose(log: str) -> str:
    """Return what a SuperNode's log says is wrong with it."""
    ### BEGIN SOLUTION
    if "SuperNode ID:" in log:
        return "nothing"
    causes = {
        "unable to get local issuer certificate": "wrong CA",
        "certificate has expired": "expired certificate",
        "[code: 2004]": "unregistered key",
        "[code: 2001]": "no key",
    }
    for sign, cause in causes.items():
        if sign in log:
            return cause
    if "--insecure" in log and "Connection attempt failed" in log:
        return "no TLS"
    return "nothing"
    ### END SOLUTION


# %%
check("7.2", diagnose)

# %% [markdown] tags=["solution"]
# **Why this.** All refusals end in the same exit code, 305; the one line above it tells
# them apart. Plain HTTP to a SuperLink with TLS is never refused in words, so it must be
# concluded. (A SuperLink that is not there looks the same to a SuperNode without TLS.)
# **What people get wrong:** they look for `CERTIFICATE_VERIFY_FAILED`, which a wrong CA
# and an expired certificate share, or take every failed attempt for a fault, though a
# SuperNode that is early, or whose SuperLink is started again, just tries on.

# %% [markdown]
# ## What survives
#
# Real machines fail in the middle of a round. Three experiments on the federation that
# is still running. First, two functions that ask the SuperLink what it knows. With
# `--format json`, the answers of `flwr` are for programs:

# %%
import json


def nodes() -> dict[str, str]:
    """Return the status of each SuperNode by its id."""
    answer = deployment.flwr("supernode list course --format json")
    return {n["node-id"]: n["status"] for n in json.loads(answer)["nodes"]}


def id_of(run: Process) -> str:
    return re.search(r"started run (\d+)", run.log())[1]


def ending(run: Process) -> tuple[str, str]:
    """Return the status of a run, and its reason."""
    command = f"list course --run-id {id_of(run)} --format json"
    answer = deployment.flwr(command)
    (known,) = json.loads(answer)["runs"]
    return known["status"], known["status-details"]


# %% [markdown] tags=["slide"]
# ### The SuperLink is killed
#
# **Predict:** no goodbye, everything on the server dies in an instant, with the
# ServerApp in the middle of a round. Then the SuperLink is started again, by the same
# command, on the same database. What becomes of `flwr run`, of the SuperNodes, and of
# the run?

# %% tags=["nbval-ignore-output"]
dead_run = submit("superlink-dies", rounds=2)
for i in range(3):  # until all three train
    deployment.processes[f"supernode-{i}"].wait_for(START, timeout=600)
superlink.kill()
exit_code = dead_run.wait(timeout=300)
superlink = deployment.start("superlink", SUPERLINK, ready=READY)
print(dead_run.tail(6))
assert exit_code == 1
assert "Connection to the SuperLink is unavailable." in dead_run.log()

# %% [markdown] tags=["slide-then"]
# `flwr run` ends at once, with a clear error. And what does the SuperLink know, now that
# it is back?

# %% tags=["slide-more", "slide-output", "nbval-ignore-output"]
known = nodes()
print("SuperNodes:", Counter(known.values())["online"], "online")
print("the run:", ending(dead_run)[0])
for i in range(3):
    assert deployment.processes[f"supernode-{i}"].is_running

# %% [markdown] tags=["slide", "title: Who came back"]
# - **The SuperNodes** retried until the SuperLink was back, and went on. The database
#   knew them, and their keys. (That they are `online` proves little: the database says so
#   for a minute anyway. In the next run they will take part.)
# - **The run** is dead: its ServerApp died with the SuperLink, and nobody starts it
#   again. But the database does not know that yet. A ServerApp gives a sign of life, a
#   **heartbeat**, every 30 seconds or less. After 60 seconds without one, the SuperLink
#   says `finished:failed`. Until then it says `running`. We shall look again.
# - **Its rounds** are lost, since this app saves its model at the end.
#
# What to do? Submit it again. And while that minute passes, the next two things happen.

# %% [markdown] tags=["slide"]
# ### One client raises, another one dies
#
# - SuperNode 2 is started anew, with a typo: partition 7 of 3. It starts without
#   complaint, since it does not know what its node config is good for. The ClientApp
#   does, and raises.
# - SuperNode 0 is killed in the middle of the round, without a goodbye. It is started
#   again at once, by the same command, with the same key.
#
# **Predict:** how many results and failures will be counted? When does the round end?
# (Its deadline, the `timeout` of lesson 05, is far: 600 s. A SuperNode gives heartbeats,
# as a ServerApp does.) And is the new SuperNode 0 let in?

# %% tags=["nbval-ignore-output"]
import time

typo = start_supernode(2, partition_id=7)
victim = deployment.processes["supernode-0"]
run = submit_and_wait_for(victim, "raises-and-dies")
victim.kill()
killed_at = time.monotonic()
try:
    start_supernode(0)
    refusal = ""
except CommandFailed as error:
    refusal = str(error)
print("again at once:", *re.findall(r"\[code.*", refusal))
print(Counter(nodes().values()))
assert "[code: 2004]" in refusal

# %% [markdown]
# It is refused, and the round waits for it. SuperNode 2 waits for nothing: **who raises**
# sends an error reply at once. The traceback is where the error was, in the SuperNode's
# log on its machine:

# %% tags=["nbval-ignore-output"]
typo.wait_for("Sent successfully", timeout=300)
print(typo.grep("Traceback", "in train", "in load_data", "ValueError"))
assert "No partition 7" in typo.log()

# %% [markdown]
# And what has become of the run whose SuperLink died? Its minute is over, or nearly:

# %% tags=["nbval-ignore-output"]
for _ in range(30):  # a minute and a half at most
    status, reason = ending(dead_run)
    if status != "running":
        break
    time.sleep(3)
print(f"{status}: {reason}")
assert status == "finished:failed"
assert reason == "No heartbeat received from the task"
log = deployment.flwr(f"log {id_of(dead_run)} course --show")
print(next(line for line in log.splitlines() if "[ROUND 1/2]" in line))

# %% [markdown]
# It was declared failed, with a reason. Its log is in the database, too:
# `flwr log RUN-ID course --show`.
#
# > **Do not trust the exit code of `flwr run --stream`.** It is 0 when the log came to
# > its end, also if the ServerApp ended with an error. (It was 1 above, because the
# > *connection* broke.) Ask `flwr list`, or look for the model.
#
# Back to the round in which SuperNode 0 died. Wait until it has ended. Then start that
# SuperNode once more, and SuperNode 2 without the typo:

# %% tags=["nbval-ignore-output"]
run.wait_for("aggregate_train", timeout=600)
seconds = time.monotonic() - killed_at
for node in [start_supernode(i, ready=None) for i in (0, 2)]:
    node.wait_for(LET_IN)
print(f"again after {seconds:.0f} s: let in")
run.wait(timeout=300)
print(run.grep(*ROUNDS))
assert "Received 1 results and 2 failures" in run.log()
assert "No partition 7" in run.log() and "Node Unavailable" in run.log()
again = deployment.processes["supernode-0"].log()
node_id = re.search(r"SuperNode ID: (\d+)", again)[1]
assert node_id in map(str, known)  # the same key, the same node id
results = deployment.folder / "results"
assert (results / "raises-and-dies" / "final_model.pt").exists()

# %% [markdown]
# Both are **failures**, and the run ends with a model, if only of the third client's.
# But they are not alike. The error reply of who raised says which node, and why.

# %% [markdown] tags=["slide"]
# - **Who dies** says nothing. 60 seconds after its last heartbeat, and so 30 to 60 after
#   its death, it is **offline**, and the SuperLink writes an error reply in its place.
#   Hence `from node 1`: that is no client, but the SuperLink's own number. Which client it
#   was, `flwr supernode list` tells while it is offline: compare the id there with the
#   `SuperNode ID` in each SuperNode's log.
# - Until then it counts as online, and its key as in use. So the new one is refused, with
#   the `[code: 2004]` of an unregistered key, and *ends*. Something has to start it again
#   a minute later: systemd with `Restart=always`, `docker run --restart always`, or you.
#   (Without SuperNode authentication it is let in at once, as a new node with a new id.)
# - A SuperNode that is *asked* to end, as by Ctrl+C, says goodbye. It is offline at once,
#   and so `start_supernode(2)` above could end the old one and start another.

# %% [markdown] tags=["slide"]
# ### A client hangs
#
# A laptop is closed, a disk stalls: the process is there and does nothing. `suspend`
# freezes SuperNode 2 with its ClientApp in the middle of training. The round has a
# deadline. In this app it is `round-timeout`, which becomes the `timeout` of
# `strategy.start`: 600 s in this app, an hour in Flower. In this run it
# is two and a half rounds of the first federation, and 20 seconds at least, so that the
# two others are done by then:

# %% tags=["nbval-ignore-output"]
deadline = max(20.0, 2.5 * took / 2)
print(f"{deadline:.0f} seconds")

# %% [markdown]
# **Predict:** the round ends at its deadline at the latest. How many results, and how
# many failures?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
frozen = deployment.processes["supernode-2"]
run = submit_and_wait_for(frozen, "one-hangs", deadline=deadline)
try:
    frozen.suspend()
    run.wait(timeout=600)
finally:
    frozen.resume()
print(run.grep(*ROUNDS))
assert "Sampled 3 nodes (out of 3)" in run.log()
assert "Received 3 results" not in run.log()
assert (results / "one-hangs" / "final_model.pt").exists()

# %% [markdown] tags=["slide"]
# ### 2 results and 0 failures, of 3
#
# That is what a machine shows that has time for you, and it is no slip of the pen:
#
# - A failure is an *error reply*. Who sends nothing is counted nowhere: the strategy gets
#   two replies, and is not told whom it waited for in vain.
# - **Every line of such a log looks like success.** The SuperNode counts as online, too:
#   its deadline was over before the 60 seconds after its last heartbeat.
#   Frozen for longer, it is a failure, like SuperNode 0. (Your machine had other work,
#   and you read `1 failures`? Then its deadline came after these 60 seconds.)
# - A client that freezes whole has no heartbeat. One that waits for a disk in your
#   `train`, or counts for ever, has: a thread of its own sends it. No deadline is long
#   enough to make that one a failure.
# - Only a subtraction gives it away:
#   **sampled − results − failures = silently missing**, here 3 − 2 − 0 = 1.
# - When the process wakes up, it finishes, sends its reply, and nobody wants it any more.
#   In the next run it takes part as if nothing had happened.

# %% [markdown]
# What the server hears of a client, and when:

# %%
from course_utils.plots import draw_silence

draw_silence()

# %% [markdown] tags=["slide", "title: What came of each"]
# SuperNode 0, which was dead a minute ago, has taken part. No run has hung, and none
# has ended without either a model or an error:
#
# | what happened | the run | you notice it by |
# |---|---|---|
# | the SuperLink died | failed | `flwr run` at once, `flwr list` after 60 s |
# | a client raised | went on with the others | a failure, with node and reason |
# | a SuperNode died | went on after a minute or less | a failure, `from node 1`: the SuperLink |
# | a client hung | went on after the deadline | **sampled − results − failures** |

# %% [markdown]
# ### Exercise 7.3: who did not answer
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 15 | Flower counts failures, and says nothing of those who are silent |
#
# Complete `read_rounds`: read the log of `flwr run --stream`, and return one dictionary
# for each round, such as
#
# `{"round": 1, "sampled": 3, "results": 2, "failures": 0, "missing": 1}`
#
# - The numbers are those of *training*, not of evaluation.
# - `missing` is how many sent neither a result nor a failure before the deadline.
# - What the log does not say is `None`. A run that breaks off leaves a round without a
#   line on its results, or even without one on its nodes. Flower prints no line either
#   if nobody at all has replied in time. `missing` is `None` then, too.
#
# <details><summary>Hint 1</summary>
#
# Go through `log.splitlines()`. Three kinds of lines matter: `[ROUND 1/2]`,
# `configure_train: ...` and `aggregate_train: ...`.
# </details>
# <details><summary>Hint 2</summary>
#
# `re.search(r"Sampled (\d+) nodes", line)` returns `None`, or a match whose `[1]` is the
# number, as a str.
# </details>
# <details><summary>Hint 3</summary>
#
# Begin each round as a dictionary of `None`s, and fill in what the later lines say.
# </details>


# %%
def read_rounds(log: str) -> list[dict]:
    """Return how many replied in training, round by round."""
    ### BEGIN SOLUTION
    rounds = []
    for line in log.splitlines():
        if found := re.search(r"\[ROUND (\d+)/", line):
            keys = ("round", "sampled", "results", "failures", "missing")
            rounds.append(dict.fromkeys(keys))
            rounds[-1]["round"] = int(found[1])
        elif found := re.search(r"configure_train: Sampled (\d+) nodes", line):
            rounds[-1]["sampled"] = int(found[1])
        elif "aggregate_train: Received" in line:
            results, failures = map(int, re.findall(r"\d+", line))
            missing = rounds[-1]["sampled"] - results - failures
            rounds[-1] |= {"results": results, "failures": failures}
            rounds[-1]["missing"] = missing
    return rounds
    ### END SOLUTION


# %%
check("7.3", read_rounds)

# %% [markdown] tags=["solution"]
# **Why this.** A client that raises sends an error, which Flower counts. One that is
# frozen sends nothing, so only the difference shows it, and a round that lost half of
# its clients reads `0 failures`. **What people get wrong:** they read the evaluation's
# lines as well, which look the same but for a word, or put 0 where a run broke off: that
# would say that all were asked and none was there.

# %% [markdown] tags=["slide"]
# ## Many machines
#
# Only the address changes. Say the server is 192.0.2.10:
#
# | where | what one types |
# |---|---|
# | server | `make_certificates(Path("tls"), hosts=["192.0.2.10"])` |
# | server | `flower-superlink --host 0.0.0.0 --port 9091` … as above |
# | client | `ssh-keygen …`, and sends `key-0.pub` to whoever runs the server |
# | server | `flwr supernode register key-0.pub course` |
# | client | `flower-supernode --superlink 192.0.2.10:9091` … as above, with `ca.pem` |
# | anywhere | `flwr run flower_app course`, with the address in its `config.toml` |

# %% [markdown]
# - **`--host 0.0.0.0`** listens on all of the server's networks. The default, 127.0.0.1,
#   is reached from the server itself only.
# - **The certificate** needs the address that clients type, here 192.0.2.10. If it is not
#   among the SAN, they read `IP address mismatch, certificate is not valid for …`, or
#   `Hostname mismatch`.
# - **The firewall:** one port of the server, for calls from the clients and from `flwr`.
#   Clients only call out, and open nothing: a hospital or a laptop behind a router can
#   take part.
# - **Each machine** installs what the app imports, and in the same versions.
# - **First the SuperNodes, then the run.** Before each round, this app waits until
#   `min-available-nodes` are there, for `node-timeout` seconds at most. `FedAvg` alone
#   would wait for ever. And it counts the nodes *before* it waits, and asks
#   `fraction-train` of those that it had counted, but at least two: submitted too
#   early, a run of three clients has a first round of two.
# - **Who is to be up tomorrow** runs under a supervisor that starts it again, and the
#   SuperLink with its `--database` on a disk that survives.
#
# In class, a teacher starts a SuperLink with `make superlink`, which writes one line for
# each participant, and every laptop joins with `make supernode`: the page
# [A federation in the classroom](teaching/classroom.md) says how, and what to do with only one
# machine.
#
# The lesson is over. End everything, and look whether anything is left:

# %%
deployment.stop()
assert not deployment.tree() and not deployment.folder.exists()
print("no process and no file is left")

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **The parts:** a SuperLink that passes messages on, SuperNodes that fetch them, and
#   `flwr`, which submits. Your ServerApp gets a process for each run, your ClientApp one
#   for each message. The app does not change, and neither does its model.
# - **TLS** proves to the client who the server is: `ca.pem` is for everyone, `key.pem`
#   for the server alone. **Keys** prove to the server who the client is: the private one
#   never leaves its SuperNode, the public one is registered.
# - **What was refused, and why,** is in the log of the SuperNode, and for keys in that of
#   the SuperLink. `flwr` only says that the SuperLink is unavailable. A SuperNode without
#   `--max-retries` retries for ever.
# - **Who raises or dies** is counted as a failure, at once or after a minute. **Who
#   hangs** until the deadline is counted nowhere: subtract results and failures from what
#   was sampled. If **the SuperLink** dies, nodes and keys survive in its database, and
#   the run does not.
# - **On many machines** the commands are the same. The address is in the certificate, one
#   port of the server is open, and clients only call out.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A log says <code>Sampled 20 nodes (out of 25)</code> and
# <code>Received 16 results and 1 failures</code>. What has become of the other clients?
# </summary>
#
# Three of the 20 that were asked sent nothing before the deadline: 20 − 16 − 1. Five
# were not asked.
# </details>
#
# <details><summary>2. Your hospital joins a federation. Which files do you get, which do
# you send, which do you keep to yourself?</summary>
#
# You get `ca.pem`, and should make sure that it is the right one: everything else rests
# on it. You send the public key. The private key stays where it was made. If somebody
# sends you `key.pem`, the server's key is no secret any more.
# </details>
#
# <details><summary>3. A colleague starts a SuperNode in the evening. The next morning it
# still prints <code>Connection attempt failed, retrying</code>. What may be wrong?
# </summary>
#
# Anything that makes the SuperLink unreachable (wrong address, firewall, SuperLink not
# started, or started without `--host 0.0.0.0`), and also `--insecure` to a SuperLink with
# TLS. A wrong CA or key would have ended it at once, with an error.
# </details>
#
# <details><summary>4. Does TLS keep a participant from sending a wrong model on
# purpose?</summary>
#
# No. TLS keeps others from reading and changing what is sent, and keys say who sends it.
# What a participant with a registered key sends is its own business.
# </details>
#
# <details><summary>5. After a power cut the SuperLink is back, on its database. Which
# of these has to be done again: registering keys, starting the SuperNodes of other
# machines, submitting the run?</summary>
#
# Only submitting the run. Keys are in the database, and SuperNodes that were not hit
# retry until the SuperLink is back. The ServerApp is gone with all its rounds, unless it
# saves its model after each round.
# </details>
#
# <details><summary>6. A ClientApp counts its rounds in a global variable. It works in a
# notebook, in which all rounds run in one process. What does it count here?</summary>
#
# Always the first: each message gets a process of its own. `context.state` is what
# survives (lesson 04).
# </details>
#
# **Next:** [08 · The run config: what each setting buys](08_run_config.ipynb), where you
# choose a run's settings by measurement. And now you can put a ClientApp where your own
# data are.

# %%
from course_utils.exercises import progress

progress("07")

# %% [markdown]
# ## Appendix: for a second reading
#
# Nothing above needs what follows, and the lesson's minutes leave it out. It starts no
# process, and needs no cell but those down to "Encrypted".
#
# ### The model of the first federation
#
# **Predict:** the same app in this notebook's own process, as in lesson 05, with the same
# settings. How far is its model from that of all those processes?

# %% tags=["nbval-ignore-output"]
import logging
import sys
import tempfile
import tomllib

from course_utils.runtime import run_in_process

logging.getLogger("flwr").setLevel(logging.ERROR)  # its log stays off
sys.path.insert(0, str(APP))
from federated_digits import client_app, server_app

pyproject = tomllib.loads((APP / "pyproject.toml").read_text())
config = pyproject["tool"]["flwr"]["app"]["config"]
config |= tomllib.loads(BRIEF.replace(" ", "\n"))
with tempfile.TemporaryDirectory() as folder:
    config |= {"num-server-rounds": 2, "results-dir": folder}
    run_in_process(
        server_app.app,
        client_app.app,
        num_supernodes=3,
        run_config=config,
        progress=False,
    )
    here = torch.load(Path(folder) / "final_model.pt")

# %% tags=["nbval-ignore-output"]
apart = max((here[name] - there[name]).abs().max().item() for name in here)
print(f"largest difference of two parameters: {apart:.1e}")
assert apart <= 1e-5

# %% [markdown]
# Next to nothing. What remains comes from sums: the server adds up the replies in the
# order in which they arrive.
#
# ### What a certificate says
#
# A certificate can be read. Here is one like the SuperLink's:

# %%
from cryptography import x509

with tempfile.TemporaryDirectory() as folder:
    files = make_certificates(Path(folder))
    ca, cert = (
        x509.load_pem_x509_certificate(files[name].read_bytes())
        for name in ("ca", "cert")
    )
    mode = files["key"].stat().st_mode & 0o777
cert.verify_directly_issued_by(ca)  # raises an error if it was not
names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName)
print("made for:", [str(name.value) for name in names.value])
assert mode == 0o600  # the key is for its owner only

# %% [markdown]
# It was signed by the CA, and made for the address by which everyone here calls, and for
# `localhost`.
#
# ### Coming back too quickly
#
# The ServerApp asks for replies every three seconds. In place of a node that is offline
# *then*, the SuperLink writes an error reply. A SuperNode that says goodbye and is back
# before that, with the same key, is not missed. But its message is gone with the old
# process, and the round waits for its deadline.
