"""Duetto: federated rounds in its simulated world."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import nets
import numpy as np
import stopwatch
import torch
import workloads
from torch import nn

import duetto as du
from duetto import algorithms, protocols, training
from duetto import tree as trees
from duetto.models import Net
from duetto.tree import Tree
from duetto.types import Action, Algorithm, Key, Move, Party, Peer, Policy, Record, Rows, Seen, ServerUpdate


@dataclass(frozen=True)
class Network(Net):
    """The network of a workload."""

    workload: str
    shape: tuple[int, ...]
    classes: int

    def module(self) -> nn.Module:
        """A new one."""
        return nets.module(self.workload)


@dataclass(frozen=True, eq=False)
class Scheduled(Policy[Tree]):
    """The cohorts of the workload, ``[rounds, cohort]`` rows of the fleet."""

    cohorts: np.ndarray

    def init(self) -> Tree:
        """Before the first round."""
        return {"round": np.int64(0)}

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Those of this round."""
        step = int(state["round"])
        action = np.full(seen.size, Action.STOP, np.int8)
        action[self.cohorts[step]] = Action.ASK
        return {"round": np.int64(step + 1)}, Move.sure(action, "as scheduled")


@dataclass(frozen=True, eq=False)
class Watched(ServerUpdate[Any]):
    """An algorithm's server, which also leaves the last parameters where the stopwatch finds them."""

    server: ServerUpdate[Any]
    last: dict[str, Tree] = field(default_factory=dict)

    def init(self, params: Tree) -> Any:
        """The server's."""
        return self.server.init(params)

    def send(self, state: Any, params: Tree, peer: Peer) -> Tree:
        """The server's."""
        return self.server.send(state, params, peer)

    def expects(self, params: Tree) -> Tree:
        """The server's."""
        return self.server.expects(params)

    def step(self, state: Any, params: Tree, collected: Tree | None, **sizes: Any) -> tuple[Any, Tree]:
        """The server's."""
        state, self.last["params"] = self.server.step(state, params, collected, **sizes)
        return state, self.last["params"]


def declared(args: argparse.Namespace, given: workloads.Given) -> Algorithm:
    """The algorithm that the arguments ask for."""
    workload = given.workload
    net = Network(given.name, workload.shape, workload.classes)
    if not hasattr(algorithms, args.algorithm):
        raise SystemExit(f"duetto has no algorithm called {args.algorithm!r}")
    algorithm = getattr(algorithms, args.algorithm)(
        net,
        _tree(given.init),
        lr=workload.lr,
        epochs=1,
        batch_size=workload.batch,
        cohort=Scheduled(given.cohorts),
    )
    if args.bf16:
        client = replace(algorithm.client, executor=training.Cohort(precision="bfloat16"))
        algorithm = replace(algorithm, client=client)
    elif args.executor:
        if not hasattr(training, args.executor):
            raise SystemExit(f"duetto has no executor called {args.executor!r}")
        algorithm = replace(algorithm, client=replace(algorithm.client, executor=getattr(training, args.executor)()))
    return replace(algorithm, server=Watched(algorithm.server))


def _tree(weights: Mapping[str, np.ndarray]) -> Tree:
    """Arrays by dotted name as a tree."""
    root: dict[str, Any] = {}
    for leaf, array in weights.items():
        layer, name = leaf.split(".")
        root.setdefault(layer, {})[name] = array
    return root


def main() -> None:
    """Train."""
    parser = stopwatch.arguments(__doc__)
    parser.add_argument("--algorithm", default="fedavg", help="a function of duetto.algorithms")
    parser.add_argument("--executor", help="a class of duetto.training; without it, the client's own")
    parser.add_argument("--bf16", action="store_true", help="round to bfloat16, which only Cohort knows")
    parser.add_argument("--network", default="constant-10", help="how simulated devices reach the cloud")
    parser.add_argument("--threads", type=int, default=1, help="of torch, inside an operation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    given = workloads.load(args.folder)
    algorithm = declared(args, given)
    fleet = du.fleet(
        "phones",
        given.workload.users,
        examples=given.sizes,
        data=lambda name: Rows(*given.user(int(name.removeprefix("user-")))),
    )
    watch = stopwatch.Stopwatch(args.out, given.rounds)

    def after(record: Record) -> None:
        if record.metrics["failed"]:
            raise SystemExit(f"round {record.step}: {record.metrics['failures']}")
        params = algorithm.server.last["params"]
        watch.lap(lambda: {where[1:].replace("/", "."): np.asarray(leaf) for where, leaf in trees.leaves(params)})

    watch.ready()
    du.simulate(
        cloud=protocols.rounds(algorithm, steps=given.rounds, seed=workloads.SEED),
        device=Party(skills=(type(algorithm.client),)),
        fleet=fleet,
        network=args.network,
        on_record=after,
    )


if __name__ == "__main__":
    main()
