"""Flower's two apps for the course's federation, ready to run.

Lessons 00 and 02 run them before you write such apps yourself: a ClientApp in lesson
03, a ServerApp in lesson 05.
"""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

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


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model for one epoch on the client's own data, and reply.

    The run config says how the data are shared out: ``scheme``, and ``alpha`` for
    ``"dirichlet"``.
    """
    net = load_net(message.content["arrays"])
    trainloader, _ = load_partition(
        context.node_config["partition-id"],
        context.node_config["num-partitions"],
        scheme=context.run_config.get("scheme", "iid"),
        alpha=context.run_config.get("alpha", 0.5),
    )
    loss = model.train(net, trainloader)
    metrics = {"train-loss": loss, "num-examples": len(trainloader.dataset)}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run ``num-server-rounds`` rounds of FedAvg in which every client trains."""
    strategy = FedAvg()
    strategy.fraction_evaluate = 0.0  # as an argument, it would log a warning
    strategy.start(
        grid,
        initial_arrays=ArrayRecord(Net(image_shape()).state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=evaluate,
    )


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test the global model on the whole test split, which this server has."""
    _, testloader = load_centralized()
    loss, accuracy = model.test(load_net(arrays), testloader)
    return MetricRecord({"loss": loss, "accuracy": accuracy})
