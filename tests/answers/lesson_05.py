"""Wrong and right answers to lesson 05's exercises, as learners would write them."""

import math
import random

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

RIGHT = {}
WRONG = {}

# --------------------------------------------------------------------- 5.1 draw_nodes


def by_shuffling_a_copy(node_ids, fraction, minimum):
    shuffled = list(node_ids)
    random.shuffle(shuffled)
    count = int(len(node_ids) * fraction)
    if count < minimum:
        count = minimum
    return shuffled[:count]


def by_numpy_choice(node_ids, fraction, minimum):
    count = max(minimum, math.floor(len(node_ids) * fraction))
    ids = np.array(node_ids, dtype=np.uint64)
    return np.random.default_rng().choice(ids, size=count, replace=False)


def as_a_set(node_ids, fraction, minimum):
    drawn = set()
    while len(drawn) < minimum or len(drawn) < int(len(node_ids) * fraction):
        drawn.add(random.choice(node_ids))
    return drawn


def by_torch_permutation(node_ids, fraction, minimum):
    order = torch.randperm(len(node_ids)).tolist()
    return tuple(
        node_ids[i] for i in order[: max(int(fraction * len(node_ids)), minimum)]
    )


def rounded_up(node_ids, fraction, minimum):
    count = max(math.ceil(fraction * len(node_ids)), minimum)
    return random.sample(node_ids, count)


def rounded(node_ids, fraction, minimum):
    return random.sample(node_ids, max(round(fraction * len(node_ids)), minimum))


def minimum_forgotten(node_ids, fraction, minimum):
    return random.sample(node_ids, int(fraction * len(node_ids)))


def smaller_of_two(node_ids, fraction, minimum):
    return random.sample(node_ids, min(int(fraction * len(node_ids)), minimum))


def sum_of_both(node_ids, fraction, minimum):
    count = int(fraction * len(node_ids)) + minimum
    return random.sample(node_ids, min(count, len(node_ids)))


def put_back(node_ids, fraction, minimum):
    return random.choices(node_ids, k=max(int(fraction * len(node_ids)), minimum))


def the_first(node_ids, fraction, minimum):
    return node_ids[: max(int(fraction * len(node_ids)), minimum)]


def seeded_inside(node_ids, fraction, minimum):
    random.seed(1)
    return random.sample(node_ids, max(int(fraction * len(node_ids)), minimum))


def neighbours(node_ids, fraction, minimum):
    count = max(int(fraction * len(node_ids)), minimum)
    begin = random.randrange(len(node_ids))
    return (node_ids + node_ids)[begin : begin + count]


def never_the_last(node_ids, fraction, minimum):
    count = max(int(fraction * len(node_ids)), minimum)
    pool = node_ids if count == len(node_ids) else node_ids[:-1]
    return random.sample(pool, count)


def positions(node_ids, fraction, minimum):
    count = max(int(fraction * len(node_ids)), minimum)
    return random.sample(range(len(node_ids)), count)


def shuffled_in_place(node_ids, fraction, minimum):
    random.shuffle(node_ids)
    return node_ids[: max(int(fraction * len(node_ids)), minimum)]


def not_a_whole_number(node_ids, fraction, minimum):
    return random.sample(node_ids, max(fraction * len(node_ids), minimum))


def only_how_many(node_ids, fraction, minimum):
    return max(int(fraction * len(node_ids)), minimum)


RIGHT["5.1"] = [by_shuffling_a_copy, by_numpy_choice, as_a_set, by_torch_permutation]
WRONG["5.1"] = [
    (rounded_up, "a part of a node is cut off"),
    (rounded, "a part of a node is cut off"),
    (minimum_forgotten, "fewer than minimum"),
    (smaller_of_two, "the larger of the two numbers counts"),
    (lambda ids, fraction, minimum: random.sample(ids, minimum), "here it is the sma"),
    (sum_of_both, "not their sum"),
    (lambda ids, fraction, minimum: random.sample(ids, len(ids)), "these are all nod"),
    (put_back, "more than once"),
    (the_first, "always the first"),
    (seeded_inside, "do not seed it"),
    (neighbours, "never drawn together"),
    (never_the_last, "some nodes are never drawn: "),
    (positions, "these are positions"),
    (shuffled_in_place, "changed what it was given"),
    (not_a_whole_number, "is no whole number"),
    (only_how_many, "should return a list"),
]

# ------------------------------------------------------------------- 5.2 read_replies


def by_try_and_except(replies, key):
    numerator, denominator, errors = 0.0, 0, 0
    for reply in replies:
        try:
            metrics = reply.content["metrics"]
        except ValueError:
            errors += 1
            continue
        numerator += metrics[key] * metrics["num-examples"]
        denominator += metrics["num-examples"]
    return (numerator / denominator if denominator else None), errors


def by_numpy_average(replies, key):
    good = [reply.content["metrics"] for reply in replies if reply.has_content()]
    mean = None
    if good:
        sizes = [metrics["num-examples"] for metrics in good]
        mean = np.average([metrics[key] for metrics in good], weights=sizes)
    return [mean, sum(reply.has_error() for reply in replies)]


def by_the_strategy(replies, key):
    metrics = FedAvg().aggregate_evaluate(1, replies)
    failed = [reply for reply in replies if reply.has_error()]
    return (metrics[key] if metrics else None), len(failed)


def good_of(replies):
    return [reply.content["metrics"] for reply in replies if not reply.has_error()]


def weighted(metrics, key):
    total = sum(m["num-examples"] for m in metrics)
    return sum(m["num-examples"] * m[key] for m in metrics) / total


def plain_mean(replies, key):
    good = good_of(replies)
    if not good:
        return None, len(replies)
    return sum(m[key] for m in good) / len(good), len(replies) - len(good)


def errors_are_opened(replies, key):
    metrics = [reply.content["metrics"] for reply in replies]
    return weighted(metrics, key), sum(reply.has_error() for reply in replies)


def errors_are_zero(replies, key):
    total, counted, failed = 0.0, 0, 0
    for reply in replies:
        if reply.has_error():
            failed += 1
            counted += 20  # as many as the others have on average
            continue
        metrics = reply.content["metrics"]
        total += metrics["num-examples"] * metrics[key]
        counted += metrics["num-examples"]
    return total / counted, failed


def plain_with_zeros(replies, key):
    good = good_of(replies)
    values = [m[key] for m in good] + [0.0] * (len(replies) - len(good))
    sizes = [m["num-examples"] for m in good]
    if len(sizes) == len(values):
        return weighted(good, key), 0
    return sum(values) / len(values), len(values) - len(sizes)


def by_number_of_replies(replies, key):
    good = good_of(replies)
    total = sum(m["num-examples"] * m[key] for m in good)
    return total / len(replies), len(replies) - len(good)


def never_divided(replies, key):
    good = good_of(replies)
    total = sum(m["num-examples"] * m[key] for m in good)
    return total, len(replies) - len(good)


def always_accuracy(replies, key):
    good = good_of(replies)
    mean = weighted(good, "eval-accuracy") if good else None
    return mean, len(replies) - len(good)


def nobody_is_forgotten(replies, key):
    good = good_of(replies)
    return weighted(good, key), len(replies) - len(good)


def zero_for_nobody(replies, key):
    good = good_of(replies)
    return (weighted(good, key) if good else 0.0), len(replies) - len(good)


def none_alone(replies, key):
    good = good_of(replies)
    return (weighted(good, key), len(replies) - len(good)) if good else None


def counts_the_good(replies, key):
    good = good_of(replies)
    failed = 0 if len(good) == len(replies) else len(good)
    return (weighted(good, key) if good else None), failed


def counts_all(replies, key):
    good = good_of(replies)
    return (weighted(good, key) if good else None), len(replies)


def other_way_round(replies, key):
    return tuple(reversed(by_try_and_except(replies, key)))


def mean_only(replies, key):
    return by_try_and_except(replies, key)[0]


RIGHT["5.2"] = [by_try_and_except, by_numpy_average, by_the_strategy]
WRONG["5.2"] = [
    (plain_mean, "every client counts equally"),
    (errors_are_opened, "ask reply.has_error() before"),
    (errors_are_zero, "weighted by num-examples"),
    (plain_with_zeros, "an error reply is no metric of 0"),
    (by_number_of_replies, "not by the number of replies"),
    (never_divided, "only summed"),
    (always_accuracy, "another metric: key says which"),
    (nobody_is_forgotten, "there is no mean: return None"),
    (zero_for_nobody, "nobody has measured anything"),
    (none_alone, "return two things, always"),
    (counts_the_good, "replies that carry a metric: count those that failed"),
    (counts_all, "these are all replies"),
    (other_way_round, "mixed up"),
    (mean_only, "return two things"),
]

# -------------------------------------------------------------------- 5.3 train_until


def send(grid, kind, arrays, server_round):
    """Ask all nodes, and return the replies that are no errors."""
    config = ConfigRecord({"lr": 0.01, "server-round": server_round})
    content = RecordDict({"arrays": arrays, "config": config})
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    return [r for r in grid.send_and_receive(messages) if not r.has_error()]


def merged(replies, by="num-examples"):
    """Average the models of replies."""
    weights = [r.content["metrics"].get(by, 1) for r in replies]
    states = [r.content["arrays"].to_torch_state_dict() for r in replies]
    mean = {
        name: sum(w * s[name] for w, s in zip(weights, states, strict=True))
        / sum(weights)
        for name in states[0]
    }
    return ArrayRecord(mean)


def mean_accuracy(replies, by="num-examples"):
    metrics = [r.content["metrics"] for r in replies]
    weights = [m.get(by, 1) for m in metrics]
    return np.average([m["eval-accuracy"] for m in metrics], weights=weights)


def by_hand(grid, arrays, max_rounds, patience):
    best = None
    for server_round in range(1, max_rounds + 1):
        arrays = merged(send(grid, "train", arrays, server_round))
        accuracy = mean_accuracy(send(grid, "evaluate", arrays, server_round))
        if best is None or accuracy > best[1]:
            best = (arrays, accuracy, server_round)
        if server_round - best[2] >= patience:
            break
    return best[0], best[1], server_round


def from_a_history(grid, arrays, max_rounds, patience):
    strategy = FedAvg(fraction_train=1.0, min_train_nodes=1)
    models, accuracies = [], []
    while len(models) < max_rounds:
        number = len(models) + 1
        out = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(out))
        out = strategy.configure_evaluate(number, arrays, ConfigRecord(), grid)
        metrics = strategy.aggregate_evaluate(number, grid.send_and_receive(out))
        models.append(arrays)
        accuracies.append(metrics["eval-accuracy"])
        if number > patience and max(accuracies[-patience:]) <= max(
            accuracies[:-patience]
        ):
            break
    best = accuracies.index(max(accuracies))
    return [models[best], accuracies[best], len(models)]


def node_by_node(grid, arrays, max_rounds, patience):
    """Push and pull, one node after the other, arrays as NumPy's."""
    best_arrays, best_accuracy, left, rounds = None, -1.0, patience, 0

    def talk(kind, content):
        for node in reversed(grid.get_node_ids()):
            (message_id,) = grid.push_messages([Message(content, node, kind)])
            (reply,) = grid.pull_messages([message_id])
            if reply.has_content():
                yield reply.content

    while left and rounds < max_rounds:
        rounds += 1
        config = ConfigRecord({"server-round": rounds})
        total, sums = 0, {}
        for got in talk("train", RecordDict({"arrays": arrays, "config": config})):
            n = got["metrics"]["num-examples"]
            total += n
            for name, array in got["arrays"].items():
                sums[name] = sums.get(name, 0) + n * array.numpy()
        arrays = ArrayRecord(
            {name: torch.as_tensor(value / total) for name, value in sums.items()}
        )
        metrics = [
            r["metrics"] for r in talk("evaluate", RecordDict({"arrays": arrays}))
        ]
        accuracy = weighted(metrics, "eval-accuracy")
        left -= 1
        if accuracy > best_accuracy:
            best_arrays, best_accuracy, left = arrays, accuracy, patience
    return best_arrays, best_accuracy, rounds


def loop(
    *,
    first=1,
    last=0,
    extra_patience=0,
    resets=True,
    ties=False,
    by_last=False,
    start_again=False,
    from_best=False,
    evaluate_old=False,
    model_by="num-examples",
    accuracy_by="num-examples",
    returns=lambda best, latest: (best[0], best[1], latest[2]),
):
    """Make a loop with one of the usual mistakes."""

    def train_until(grid, arrays, max_rounds, patience):
        initial, best, stale = arrays, (arrays, 0.0, 0), 0
        before_last = 0.0
        for server_round in range(1, max_rounds + last + 1):
            begin = initial if start_again else best[0] if from_best else arrays
            replies = send(grid, "train", begin, server_round + first - 1)
            arrays = merged(replies, model_by)
            tested = begin if evaluate_old else arrays
            replies = send(grid, "evaluate", tested, server_round + first - 1)
            accuracy = mean_accuracy(replies, accuracy_by)
            bar = before_last if by_last else best[1]
            if accuracy > bar or (ties and accuracy == bar):
                stale = 0 if resets else stale
            else:
                stale += 1
            if accuracy > best[1]:
                best = (arrays, accuracy, server_round)
            before_last = accuracy
            if stale >= patience + extra_patience:
                break
        return returns(best, (arrays, accuracy, server_round))

    return train_until


def fraction_of_nodes(grid, arrays, max_rounds, patience):
    strategy = FedAvg(fraction_train=0.5)
    messages = strategy.configure_train(1, arrays, ConfigRecord(), grid)
    arrays, _ = strategy.aggregate_train(1, grid.send_and_receive(messages))
    replies = send(grid, "evaluate", arrays, 1)
    return arrays, mean_accuracy(replies), 1


def without_server_round(grid, arrays, max_rounds, patience):
    config = ConfigRecord({"lr": 0.01})
    content = RecordDict({"arrays": arrays, "config": config})
    messages = [Message(content, node, "train") for node in grid.get_node_ids()]
    arrays = merged(grid.send_and_receive(messages))
    return arrays, mean_accuracy(send(grid, "evaluate", arrays, 1)), 1


def round_by_start(grid, arrays, max_rounds, patience):
    """Let the whole loop of Flower run one round at a time."""
    for _ in range(max_rounds):
        result = FedAvg().start(grid, arrays, num_rounds=1)
        arrays = result.arrays
        accuracy = result.evaluate_metrics_clientapp[1]["eval-accuracy"]
    return arrays, accuracy, max_rounds


def errors_stop_it(grid, arrays, max_rounds, patience):
    best, stale = (arrays, 0.0), 0
    for server_round in range(1, max_rounds + 1):
        content = RecordDict(
            {
                "arrays": arrays,
                "config": ConfigRecord({"server-round": server_round}),
            }
        )
        nodes = grid.get_node_ids()
        messages = [Message(content, node, "train") for node in nodes]
        arrays = merged(grid.send_and_receive(messages))
        accuracy = mean_accuracy(send(grid, "evaluate", arrays, server_round))
        best, stale = (
            ((arrays, accuracy), 0) if accuracy > best[1] else (best, stale + 1)
        )
        if stale == patience:
            break
    return (*best, server_round)


def never_evaluates(grid, arrays, max_rounds, patience):
    for server_round in range(1, max_rounds + 1):
        arrays = merged(send(grid, "train", arrays, server_round))
    return arrays, 0.0, max_rounds


def evaluates_first(grid, arrays, max_rounds, patience):
    best = mean_accuracy(send(grid, "evaluate", arrays, 0))
    return arrays, best, 0


def endless_while(grid, arrays, max_rounds, patience):
    server_round = 0
    while True:
        server_round += 1
        arrays = merged(send(grid, "train", arrays, server_round))
        send(grid, "evaluate", arrays, server_round)


def last_client(grid, arrays, max_rounds, patience):
    replies = send(grid, "train", arrays, 1)
    arrays = replies[-1].content["arrays"]
    return arrays, mean_accuracy(send(grid, "evaluate", arrays, 1)), 1


def mean_of_train_sizes(grid, arrays, max_rounds, patience):
    best, stale = (arrays, 0.0), 0
    for server_round in range(1, max_rounds + 1):
        trained = send(grid, "train", arrays, server_round)
        arrays = merged(trained)
        sizes = [r.content["metrics"]["num-examples"] for r in trained]
        tested = send(grid, "evaluate", arrays, server_round)
        accuracies = [r.content["metrics"]["eval-accuracy"] for r in tested]
        accuracy = np.average(accuracies, weights=sizes)
        stale += 1
        if accuracy > best[1]:
            best, stale = (arrays, accuracy), 0
        if stale == patience:
            break
    return (*best, server_round)


def asks_a_question(grid, arrays, max_rounds, patience):
    send(grid, "query", arrays, 1)
    return by_hand(grid, arrays, max_rounds, patience)


def other_names(grid, arrays, max_rounds, patience):
    content = RecordDict({"model": arrays, "config": ConfigRecord({"server-round": 1})})
    messages = [Message(content, node, "train") for node in grid.get_node_ids()]
    return merged(grid.send_and_receive(messages)), 0.0, 1


RIGHT["5.3"] = [by_hand, from_a_history, node_by_node]
WRONG["5.3"] = [
    (loop(returns=lambda b, n: (n[0], b[1], n[2])), "arrays of the last round"),
    (loop(returns=lambda b, n: (b[0], n[1], n[2])), "accuracy of the last round"),
    (loop(returns=lambda b, n: b), "number of the best round"),
    (loop(returns=lambda b, n: b[:2]), "return three things"),
    (loop(returns=lambda b, n: (b[0], b[1], n[2] - 1)), "how many rounds were run"),
    (loop(returns=lambda b, n: (*reversed(b[:2]), n[2])), "should be an ArrayRecord"),
    (loop(extra_patience=1), "a round too late"),
    (loop(extra_patience=-1), "too early"),
    (loop(extra_patience=99), "goes on to max_rounds"),
    (loop(resets=False), "sets their count back to 0"),
    (loop(), "the first round is always a new best"),
    (loop(ties=True), "only equals the best"),
    (loop(by_last=True), "not with that of the round before"),
    (loop(first=0), "counts from 1"),
    (loop(last=1), "more than max_rounds"),
    (loop(last=-1), "a round before max_rounds"),
    (loop(start_again=True), "the initial model again"),
    (loop(from_best=True), "begins with the best model"),
    (loop(evaluate_old=True), "from before the round"),
    (loop(model_by="nothing"), "equally in the model"),
    (loop(accuracy_by="nothing"), "equally in the accuracy"),
    (mean_of_train_sizes, "those of the train replies"),
    (fraction_of_nodes, "2 of 3 nodes are asked to train"),
    (without_server_round, 'needs "server-round"'),
    (round_by_start, "it rises by 1 in each round"),
    (errors_stop_it, "ask reply.has_error() before"),
    (never_evaluates, "twice in a row"),
    (evaluates_first, "begins with an evaluation"),
    (endless_while, "more than max_rounds"),
    (last_client, "one client's model"),
    (asks_a_question, "no message of type 'query'"),
    (other_names, 'as an ArrayRecord named "arrays"'),
    (lambda grid, arrays, max_rounds, patience: (arrays, 0.0, 0), "no message has"),
]
