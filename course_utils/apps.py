"""Flower's two apps for the course's federation, ready to run.

Lessons 00 and 02 run them before you write such apps yourself: a ClientApp in lesson
03, a ServerApp in lesson 05, which goes on with this ClientApp.
"""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch.utils.data import DataLoader

from course_utils import model
from course_utils.model import Net
from course_utils.partitions import image_shape, load_centralized, load_partition

client_app = ClientApp()
server_app = ServerApp()


def load_net(arrays: ArrayRecord) -> Net:
    """Make the model that a message carries."""
    net = Net(image_shape())
    net.load_state_dict(arrays.to_torch_state_dict())
    return net


def load_data(context: Context) -> tuple[DataLoader, DataLoader]:
    """Load the client's own data.

    The run config says how all data are shared out: ``scheme``, and ``alpha`` for
    ``"dirichlet"``. It may say ``batch-size``, too.
    """
    return load_partition(
        context.node_config["partition-id"],
        context.node_config["num-partitions"],
        scheme=context.run_config.get("scheme", "iid"),
        alpha=context.run_config.get("alpha", 0.5),
        batch_size=context.run_config.get("batch-size", 16),
    )


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model on the client's own data, and reply.

    ``local-epochs`` comes from the run config, ``lr`` from the message.
    """
    net = load_net(message.content["arrays"])
    trainloader, _ = load_data(context)
    loss = model.train(
        net,
        trainloader,
        epochs=context.run_config.get("local-epochs", 1),
        lr=message.content["config"].get("lr", 0.01),
    )
    metrics = {"train-loss": loss, "num-examples": len(trainloader.dataset)}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


@client_app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the global model on the client's own test data, and reply."""
    net = load_net(message.content["arrays"])
    _, testloader = load_data(context)
    loss, accuracy = model.test(net, testloader)
    metrics = {
        "eval-loss": loss,
        "eval-accuracy": accuracy,
        "num-examples": len(testloader.dataset),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run ``num-server-rounds`` rounds of FedAvg in which every client trains."""
    FedAvg(fraction_evaluate=0.0).start(
        grid,
        initial_arrays=ArrayRecord(Net(image_shape()).state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=evaluate_centrally,
    )


def evaluate_centrally(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test the global model on the whole test split, which this server has."""
    _, testloader = load_centralized()
    loss, accuracy = model.test(load_net(arrays), testloader)
    return MetricRecord({"loss": loss, "accuracy": accuracy})
