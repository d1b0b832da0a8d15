# SPDX-License-Identifier: Apache-2.0
"""The node's half: adds the node's number to every tensor and sends all of them back."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """No training: one addition a tensor, so that the reply depends on the broadcast."""
    number = int(context.node_config["number"])
    arrays = ArrayRecord()
    for name, array in message.content["arrays"].items():
        arrays[name] = Array(array.numpy() + number)
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)
