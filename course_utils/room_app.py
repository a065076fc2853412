"""The app of a room: everybody says a name, then comes the federation of lesson 06.

``make run`` puts a copy of this file into a copy of the Flower App. A SuperNode keeps
its node config to itself, and the SuperLink does not know it: only what a ClientApp
replies reaches the server. So the server asks, by a query.
"""

import json

from federated_digits.client_app import app
from federated_digits.server_app import main as federate
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

NAMES = "Names by node id: "
"""Begins the line that tells the names, in JSON."""
PATIENCE = 60.0
"""Seconds to wait for names."""

client_app = app  # Flower looks for the name in this file
server_app = ServerApp()


@client_app.query("name")
def say_name(message: Message, context: Context) -> Message:
    """Tell the name that this SuperNode was started with; without one, nothing."""
    name = ConfigRecord({"name": context.node_config.get("name", "")})
    return Message(RecordDict({"who": name}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask who is there, then run the federation."""
    asked = [Message(RecordDict(), node, "query.name") for node in grid.get_node_ids()]
    replies = grid.send_and_receive(asked, timeout=PATIENCE)
    names = {
        reply.metadata.src_node_id: reply.content["who"]["name"]
        for reply in replies
        if reply.has_content()
    }
    print(NAMES + json.dumps(names), flush=True)
    federate(grid, context)
