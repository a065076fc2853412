"""The ClientApp: trains and evaluates the model on the SuperNode's own digits."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.utils.data import DataLoader

from federated_digits import task

app = ClientApp()


def load_net(message: Message) -> task.Net:
    """Make the model that the server sent."""
    net = task.Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net


def load_data(context: Context) -> tuple[DataLoader, DataLoader]:
    """Load the partition that this SuperNode was started with."""
    node = context.node_config
    if "partition-id" not in node or "num-partitions" not in node:
        raise ValueError(
            "This SuperNode does not know its data: start it with "
            '--node-config "partition-id=0 num-partitions=3".'
        )
    return task.load_partition(
        node["partition-id"], node["num-partitions"], context.run_config["batch-size"]
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model on the own data, and send it back."""
    net, config = load_net(message), message.content["config"]
    trainloader, _ = load_data(context)
    # The update depends on the seed, the round and the data: not on the process.
    partition_id = context.node_config["partition-id"]
    task.set_seed(config["seed"], config["server-round"], partition_id)
    loss = task.train(net, trainloader, epochs=config["local-epochs"], lr=config["lr"])
    metrics = {"train-loss": loss, "num-examples": len(trainloader.dataset)}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the global model on the own test data."""
    _, testloader = load_data(context)
    loss, accuracy = task.test(load_net(message), testloader)
    metrics = {
        "eval-loss": loss,
        "eval-accuracy": accuracy,
        "num-examples": len(testloader.dataset),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
