"""A prior down, its correction up: slow-fast learning against FedAvg and against a cloud that hears nothing, on films.

``python benchmarks/federated/slow_fast.py`` prints, for each seed, the AUC at the user mean over what device users held
back (their last fifth of rows) and over the unseen users' last two fifths. Of the large model: as it was taught, after
slow-fast learning, and after as many further passes over its rows' labels alone. Of the small one: as the large one
taught it, as all share it after FedAvg and after slow-fast learning, and what each device answers with after a last
training of its own (fine-tuned, or fast). Needs ``ml-100k`` in ``$DUETTO_DATA``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from duetto import tasks
from duetto.algorithms import fedavg_ft, slow_fast
from duetto.evaluation.ranking import auc
from duetto.evaluation.users import user_mean
from duetto.policies import Uniform
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.tasks.ratings import score
from duetto.training import CrossEntropy, Sequential, sequential
from duetto.training.distilled import distilled
from duetto.types import Algorithm, Local, Party, Rows, rng


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cohort", type=int, default=30)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--rows", type=int, default=20_000, help="of the cloud")
    parser.add_argument("--newest", type=float, nargs="*", default=[0.5, 1.0])
    parser.add_argument("--trust", type=float, default=0.5)
    args = parser.parse_args()
    for seed in args.seeds:
        measured(seed, args)


def measured(seed: int, args: Any) -> None:
    """One seed's lines."""
    task = tasks.load("ratings", seed=seed)
    mine = [task.rows(name) for name in task.users["train"]]
    x, y = np.concatenate([rows.x for rows in mine]), np.concatenate([rows.y for rows in mine])
    some = np.sort(rng((seed, "cloud")).choice(len(y), args.rows, replace=False))
    cloud = Rows(x[some].astype(np.float32), y[some])
    large = taught(task.teach_large, task.large.init(seed), {"x": cloud.x, "y": cloud.y}, seed)
    said = task.large.logits(large, cloud.x)
    small = distilled(task.teach_small, task.small, task.small.init(seed), cloud.x, said, (seed, "small"))
    devices = {name: stream(task.rows(name)) for name in task.users["device"]}
    held = {name: last(task.rows(name), 0.2) for name in devices}
    unseen = {name: last(task.rows(name), 0.4) for name in task.users["unseen"]}

    def shown(name: str, answer: Any, own: Any = None) -> None:
        held_back = {user: own(user, rows.x) if own else answer(rows.x) for user, rows in held.items()}
        cold = {user: answer(rows.x) for user, rows in unseen.items()}
        print(f"seed {seed} {name:24} held {mean(held_back, held):.4f} unseen {mean(cold, unseen):.4f}", flush=True)

    shown("large, as taught", lambda x: task.large.logits(large, x))
    shown("small, as taught", lambda x: task.small.logits(small, x))
    how: Any = {"lr": 0.05, "epochs": 2, "batch_size": 32, "momentum": 0.9, "cohort": Uniform(args.cohort)}
    plain = fedavg_ft(task.small, small, **how)
    log = lived(plain, devices, args.rounds, seed)
    told(shown, "fedavg", task.small, plain, log.memory["cloud"]["params"], devices, seed)
    for newest in args.newest:
        both = slow_fast(
            task.small, small, (task.large, large), cloud, newest=newest, trust=args.trust, every=args.every, **how
        )
        log = lived(both, devices, args.rounds, seed)
        server: Any = both.server
        slow = log.memory["cloud"]["rounds"]["server"]["slow"]
        shown(f"large, slow-fast {newest:g}", lambda x, slow=slow: task.large.logits(slow, x))
        told(shown, f"slow-fast {newest:g}", task.small, both, log.memory["cloud"]["params"], devices, seed)
    labels = replace(server.teacher, loss=(CrossEntropy(),))
    on = large
    for step in range(args.rounds // args.every):
        on = taught(labels, on, {"x": cloud.x, "y": cloud.y}, seed, step)
    shown("large, labels alone", lambda x: task.large.logits(on, x))
    after = distilled(server.pupil, task.small, small, cloud.x, task.large.logits(on, cloud.x), (seed, "after"))
    shown("small, of labels alone", lambda x: task.small.logits(after, x))


def told(
    shown: Any, name: str, net: Any, algorithm: Algorithm, params: Any, devices: dict[str, Rows], seed: int
) -> None:
    """What is shared, and what each device makes of it in a last training."""
    client: Any = algorithm.client
    sent, fast = {"params": params}, {}
    for user, rows in devices.items():
        local, _ = client(Local(rows), sent, (seed, "last", user), "cloud")
        fast[user] = client.personal(sent, local.memory)
    shown(f"{name}, shared", lambda x: net.logits(params, x))
    shown(f"{name}, own", lambda x: net.logits(params, x), lambda user, x: net.logits(fast[user], x))


def taught(client: Any, params: Any, data: Any, *key: int) -> Any:
    """The parameters after a training."""
    return sequential.run(client, {"params": params}, data, ("taught", *key)).params


def stream(rows: Rows) -> Rows:
    """The first three fifths, in the order of time."""
    n = int(0.6 * len(rows)) // 5 * 5
    return Rows(rows.x[:n].astype(np.float32), rows.y[:n])


def last(rows: Rows, share: float) -> Rows:
    """The last rows."""
    n = max(5, int(share * len(rows)) // 5 * 5)
    return Rows(rows.x[-n:].astype(np.float32), rows.y[-n:])


def mean(answers: dict[str, np.ndarray], truth: dict[str, Rows]) -> float:
    """The mean over users of their AUC."""
    owners = np.concatenate([np.full(len(rows), user) for user, rows in truth.items()])
    scores = np.concatenate([score(answers[user]) for user in truth])
    return user_mean(auc(scores, np.concatenate([rows.y for rows in truth.values()]), owners))


def lived(algorithm: Algorithm, devices: dict[str, Rows], steps: int, seed: int) -> Any:
    """The rounds."""
    client = replace(algorithm.client, executor=Sequential())
    return simulate(
        fleet=fleet("phones", list(devices), data=devices.__getitem__),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=seed),
    )


if __name__ == "__main__":
    main()
