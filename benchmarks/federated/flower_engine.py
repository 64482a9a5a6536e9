"""Flower's simulation engine: two Ray actors with one thread each, FedAvg of its message API.

The server tells the nodes which client they are, so that cohorts and orders are those of the workload.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import nets
import stopwatch
import torch
import workloads
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch.nn.functional import cross_entropy


class Scheduled(FedAvg):
    """FedAvg over the cohorts of the workload."""

    def __init__(self, folder: Path) -> None:
        super().__init__(fraction_evaluate=0.0)
        self._folder, self._given = folder, workloads.load(folder)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a client; a node for each user."""
        while len(nodes := sorted(grid.get_node_ids())) < self._given.workload.users:
            time.sleep(0.01)
        step = server_round - 1
        return [
            Message(
                RecordDict(
                    {
                        "arrays": arrays,
                        "config": ConfigRecord({"folder": str(self._folder), "step": step, "position": position}),
                    }
                ),
                dst_node_id=nodes[user],
                message_type=MessageType.TRAIN,
            )
            for position, user in enumerate(self._given.cohorts[step])
        ]


def train(message: Message, context: Context) -> Message:
    """A client: train on its rows, answer with weights."""
    torch.set_num_threads(1)
    asked = message.content["config"]
    given = workloads.load(Path(asked["folder"]))  # read once by each actor
    net = nets.module(given.name)
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimiser = torch.optim.SGD(net.parameters(), given.workload.lr)
    x, y = (torch.from_numpy(part) for part in given.client(asked["step"], asked["position"]))
    for rows, labels in zip(x.split(given.workload.batch), y.split(given.workload.batch), strict=True):
        optimiser.zero_grad()
        cross_entropy(net(rows), labels).backward()
        optimiser.step()
    told = {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": len(y)})}
    return Message(RecordDict(told), reply_to=message)


def main() -> None:
    """Train."""
    args = stopwatch.arguments(__doc__).parse_args()
    given = workloads.load(args.folder)
    watch = stopwatch.Stopwatch(args.out, given.rounds)
    server, client = ServerApp(), ClientApp()
    client.train()(train)

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        def after(server_round: int, arrays: ArrayRecord) -> None:
            if server_round:
                watch.lap(lambda: {leaf: array.numpy() for leaf, array in arrays.to_torch_state_dict().items()})
            else:
                watch.ready()

        first = ArrayRecord({leaf: torch.from_numpy(array) for leaf, array in given.init.items()})
        Scheduled(args.folder).start(grid, first, num_rounds=given.rounds, evaluate_fn=after)

    run_simulation(
        server,
        client,
        given.workload.users,
        backend_config={
            "init_args": {"num_cpus": 2, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
