"""The ClientApp that lessons 03 and 04 have built, for later lessons to import."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.utils.data import DataLoader

from course_utils import model
from course_utils.model import Net
from course_utils.partitions import image_shape, load_partition

client_app = ClientApp()


def load_net(arrays: ArrayRecord) -> Net:
    """Make the model that an ArrayRecord carries."""
    net = Net(image_shape())
    net.load_state_dict(arrays.to_torch_state_dict())
    return net


def load_data(context: Context) -> tuple[DataLoader, DataLoader]:
    """Load this client's train and test data, shared out as the run config says."""
    return load_partition(
        context.node_config["partition-id"],
        context.node_config["num-partitions"],
        scheme=context.run_config["scheme"],
        alpha=context.run_config.get("alpha", 0.5),  # read by "dirichlet" only
    )


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model of the message, with the message's lr, and send it back."""
    net = load_net(message.content["arrays"])
    trainloader, _ = load_data(context)
    loss = model.train(
        net,
        trainloader,
        epochs=context.run_config["local-epochs"],
        lr=message.content["config"]["lr"],
    )
    metrics = {"train-loss": loss, "num-examples": len(trainloader.dataset)}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


@client_app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the model of the message on this client's test data."""
    net = load_net(message.content["arrays"])
    _, testloader = load_data(context)
    loss, accuracy = model.test(net, testloader)
    metrics = {
        "eval-loss": loss,
        "eval-accuracy": accuracy,
        "num-examples": len(testloader.dataset),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
