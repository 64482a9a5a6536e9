"""DCCL against its claim on films: do people with few ratings gain more, and does the cloud's model get better?

    DUETTO_DATA=... python benchmarks/federated/dccl.py --choose 9     # grids on calibration users
    DUETTO_DATA=... python benchmarks/federated/dccl.py --seeds 0,1,2  # the tables

The cloud's model is the small one of ``ratings``, taught on the rows of the public users, or of the first ``--public``
of them. Device users learn on the first 60 % of their films and are scored on the last 20 %; they are in fifths by how
many films they rated. Two scores a user: AUC (the share of pairs of a film that they rated and one that they did not
which is ordered right) and accuracy. Rows are the cloud's model as it is; each device fine-tuning it; FedAvg, and each
fine-tuning that; a patch on the cloud's model as it is; DCCL (rounds of patches and MoMoDistill, then the patch once
more). Gains over the cloud's model are paired by user, intervals redraw users; a user of several seeds counts as their
mean. The last table is of the cloud's model alone, on users from whom nobody learned: before, after FedAvg, after
DCCL's rounds, and after as many passes over the same rows on labels only.

Numbers were chosen on seed 9's calibration users (``--choose``), who are left out of all that is reported.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from duetto import tasks
from duetto.algorithms import dccl, fedavg_ft
from duetto.evaluation import ranking, users
from duetto.evaluation.users import PerUser
from duetto.models import Net, TwoTower
from duetto.programs.personal import tuned
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.tasks import ratings
from duetto.tasks.task import Task
from duetto.training import SGD, Client, CrossEntropy, Distil, Sequential, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Local, Party, Rows, rng

CHOSEN = 9  # the seed whose calibration users chose the numbers
GROUPS = ("fewest ratings", "2nd fifth", "3rd fifth", "4th fifth", "most ratings")


@dataclass(frozen=True, eq=False)
class People:
    """A seed's: who learns on what, and is scored on what.

    Attributes:
        net, params: the cloud's model.
        rows: some of the cloud's own rows.
        learn: user -> first rows.
        held: user -> last rows.
        films: user -> how many they rated.
        others: users from whom nobody learns, all their rows.
    """

    net: Net
    params: Tree
    rows: Rows
    learn: Mapping[str, Rows]
    held: Mapping[str, Rows]
    films: Mapping[str, int]
    others: Mapping[str, Rows]


def people(seed: int, group: str, given: argparse.Namespace) -> People:
    """Of a group; but for the seed of choosing, those who chose are left out."""
    task = tasks.load("ratings", seed)
    if given.public:
        task = replace(task, users={**task.users, "train": task.users["train"][: given.public]})
    chose = set() if seed == CHOSEN else set(tasks.load("ratings", CHOSEN).users["calibration"])
    assert task.dealt is not None
    part = np.empty(len(task.data.y), "U16")
    for name, at in task.dealt.items():
        part[at] = name
    learn, held, films = {}, {}, {}
    for user in sorted(set(task.users[group]) - chose)[: given.people or None]:
        own = task.data.rows(user)
        first, last = own[part[own] == "stream"], own[part[own] == "held"]
        if len(first) and len(last):
            learn[user], held[user] = (Rows(task.data.x[at], task.data.y[at]) for at in (first, last))
            films[user] = int((task.data.y[own] == 1).sum())
    blocks = len(task.public) // (1 + ratings.NEGATIVES)
    drawn = rng((seed, "cloud rows")).permutation(blocks)[: given.rows // (1 + ratings.NEGATIVES)]
    at = (np.sort(drawn)[:, None] * (1 + ratings.NEGATIVES) + np.arange(1 + ratings.NEGATIVES)).ravel()
    model, params = made(task, given.net, given.public)
    others = {user: task.rows(user) for user in task.users["unseen"] if user not in chose}
    return People(model, params, Rows(task.public.x[at], task.public.y[at]), learn, held, films, others)


def made(task: Task, net: str, public: int) -> tuple[Net, Tree]:
    """The cloud's model: the small one of the pair; else such a one, or two towers, taught on labels alone."""
    if net == "ncf" and not public:
        return task.small, tasks.trained(task).small
    towers = TwoTower(task.small.shape, 2, task.small.items, 8, (16,))  # type: ignore[attr-defined]
    model = task.small if net == "ncf" else towers
    teach = replace(task.teach_small, net=model, loss=(CrossEntropy(),))
    data = {"x": task.public.x, "y": task.public.y}
    return model, sequential.run(teach, {"params": model.init(task.seed)}, data, (task.seed, "cloud")).params


def scores(client: Client, sent: Tree, devices: Mapping[str, Local], asked: Mapping[str, Rows]) -> dict[str, PerUser]:
    """AUC and accuracy by user of what each device answers."""
    logits = np.concatenate([client.logits(sent, devices[user].memory, asked[user].x) for user in asked])
    y = np.concatenate([rows.y for rows in asked.values()])
    owner = np.repeat(list(asked), [len(rows) for rows in asked.values()])
    return {
        "AUC": ranking.auc(ratings.score(logits), y, owner),
        "accuracy": users.by(logits.argmax(1) == y, owner),
    }


def lived(algorithm: Algorithm, here: People, steps: int, seed: int) -> tuple[Tree, dict[str, Local]]:
    """The cloud's parameters and the devices after so many rounds of everybody."""
    log = simulate(
        fleet=fleet("phones", list(here.learn), data=here.learn.__getitem__),
        device=Party(skills=(type(algorithm.client),)),
        cloud=rounds(alone(algorithm), steps=steps, seed=seed),
        seed=seed,
    )
    return log.memory["cloud"]["params"], {
        user: Local(rows, log.memory.get(user, {})) for user, rows in here.learn.items()
    }


def alone(algorithm: Algorithm) -> Algorithm:
    """The same, one client after the other: what an executor finds faster changes from machine to machine."""
    return replace(algorithm, client=replace(algorithm.client, executor=Sequential()))  # type: ignore[type-var]


def patching(here: People, given: argparse.Namespace, **changed: Any) -> Algorithm:
    """DCCL."""
    own: dict[str, Any] = {"size": given.size, "alpha": given.alpha, "lr": given.lr, "epochs": given.epochs}
    made = alone(dccl(here.net, here.params, here.rows, **{**own, "batch_size": 32, **changed}))
    student = Client(
        here.net, (CrossEntropy(given.alpha), Distil(1 - given.alpha, 1.0)), SGD(given.cloud_lr, 0.9), given.passes, 256
    )
    return replace(made, server=replace(made.server, student=student))  # type: ignore[type-var]


def tuning(here: People, given: argparse.Namespace, **changed: Any) -> Algorithm:
    """Federated averaging, where a device keeps what it made of it last."""
    own: dict[str, Any] = {"lr": given.tune_lr, "epochs": given.tune_epochs, "batch_size": 32}
    return alone(fedavg_ft(here.net, here.params, **{**own, **changed}))


def personal(algorithm: Algorithm, params: Tree, devices: Mapping[str, Local], seed: int, epochs: int) -> Any:
    """The client, what is sent, and the devices once each has trained for itself."""
    client: Any = replace(algorithm.client, epochs=epochs)  # type: ignore[type-var]
    return client, {"params": params}, tuned(client, {"params": params}, devices, seed)


def run(seed: int, given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, int], dict[str, Any]]:
    """Scores by system and user, how many films each user rated, and scores of the cloud's models."""
    here = people(seed, "device", given)
    fresh = {user: Local(rows) for user, rows in here.learn.items()}
    averaging, patches = tuning(here, given), patching(here, given)
    plain: Any = averaging.client
    start = {"params": here.params}
    systems = {"the cloud's model": scores(plain, start, fresh, here.held)}
    systems["fine-tuning"] = scores(*personal(averaging, here.params, fresh, seed, given.tune_epochs), here.held)
    slow = tuning(here, given, lr=given.fedavg_lr, epochs=1)
    shared, _ = lived(slow, here, given.rounds, seed)
    systems["FedAvg"] = scores(plain, {"params": shared}, fresh, here.held)
    systems["FedAvg + fine-tuning"] = scores(*personal(averaging, shared, fresh, seed, given.tune_epochs), here.held)
    systems["a patch"] = scores(*personal(patches, here.params, fresh, seed, given.epochs), here.held)
    short = patching(here, given, epochs=given.round_epochs)
    student = short.server.student  # type: ignore[attr-defined]
    after, devices = lived(short, here, given.rounds, seed)
    systems["DCCL"] = scores(*personal(patches, after, devices, seed, given.epochs), here.held)
    models = {"before": here.params, "after FedAvg": shared, "after MoMoDistill": after}
    labels, now = replace(student, loss=(CrossEntropy(),)), here.params
    for step in range(given.rounds):
        data = {"x": here.rows.x, "y": here.rows.y}
        now = sequential.run(labels, {"params": now}, data, (seed, "round", step, "server")).params
    models["after labels only"] = now
    nobody = {user: Local() for user in here.others}
    cloud = {name: scores(plain, {"params": each}, nobody, here.others) for name, each in models.items()}
    return systems, dict(here.films), cloud


def pooled(found: Sequence[Mapping[str, Any]], system: str, what: str) -> dict[str, float]:
    """User -> mean over the seeds in which there is a score."""
    by: dict[str, list[float]] = {}
    for each in found:
        scored = each[system][what]
        for user, value in zip(scored.names.tolist(), scored.mean, strict=True):
            by.setdefault(user, []).append(float(value))
    return {user: float(np.mean(values)) for user, values in by.items()}


def fifths(films: Mapping[str, int]) -> dict[str, int]:
    """User -> 0 (fewest films) to 4; ties by name."""
    order = sorted(films, key=lambda user: (films[user], user))
    return {user: 5 * place // len(order) for place, user in enumerate(order)}


def resampled(values: np.ndarray, key: str, n: int = 4000) -> np.ndarray:
    """Means of redrawn users."""
    return np.asarray(values[rng((0, "dccl", key)).integers(len(values), size=(n, len(values)))].mean(1))


def shown(values: np.ndarray, key: str) -> str:
    """A mean and its interval, in points."""
    low, high = np.quantile(resampled(values, key), [0.025, 0.975])
    cell = f"{100 * values.mean():+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
    return f"**{cell}**" if low > 0 or high < 0 else cell


def report(given: argparse.Namespace) -> None:
    """Both tables."""
    found, films, clouds = [], {}, []
    for seed in map(int, given.seeds.split(",")):
        systems, counted, cloud = run(seed, given)
        found.append(systems)
        films |= counted
        clouds.append(cloud)
        means = {name: {k: round(float(v.mean.mean()), 4) for k, v in each.items()} for name, each in systems.items()}
        print(seed, json.dumps(means), flush=True)
    group = fifths(films)
    for what in ("AUC", "accuracy"):
        base = pooled(found, "the cloud's model", what)
        named = sorted(base)
        place = np.array([group[user] for user in named])
        own = np.array([base[user] for user in named])
        limits = [f"{min(v)}-{max(v)}" for v in ([films[u] for u in named if group[u] == g] for g in range(5))]
        heads = [f"{g} ({limit})" for g, limit in zip(GROUPS, limits, strict=True)]
        print(f"\n| {what}, x 100 | {' | '.join(heads)} | all | fewest less others |\n|{'---|' * 8}")
        level = [f"{100 * own[place == g].mean():.2f}" for g in range(5)]
        print(f"| the cloud's model ({len(named)} users) | {' | '.join(level)} | {100 * own.mean():.2f} | |")
        for name in list(found[0])[1:]:
            gains = np.array([pooled(found, name, what)[user] for user in named]) - own
            cells = [shown(gains[place == g], f"{g}") for g in range(5)]
            apart = resampled(gains[place == 0], "tail") - resampled(gains[place > 0], "others")
            low, high = np.quantile(apart, [0.025, 0.975])
            middle = gains[place == 0].mean() - gains[place > 0].mean()
            cells += [shown(gains, "all"), f"{100 * middle:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("\n| the cloud's model, unseen users | AUC | gain | accuracy | gain |\n|---|---|---|---|---|")
    for name in clouds[0]:
        cells = []
        for what in ("AUC", "accuracy"):
            base, now = pooled(clouds, "before", what), pooled(clouds, name, what)
            cells.append(f"{100 * np.mean(list(now.values())):.2f}")
            cells.append("" if name == "before" else shown(np.array([now[u] - base[u] for u in sorted(base)]), "cloud"))
        print(f"| {name} | {' | '.join(cells)} |")


def choose(seed: int, given: argparse.Namespace) -> None:
    """Grids on calibration users: patches, fine-tuning, FedAvg's step, the cloud's step and share of labels."""
    here = people(seed, "calibration", given)
    fresh = {user: Local(rows) for user, rows in here.learn.items()}

    def told(name: str, found: Mapping[str, PerUser]) -> None:
        print(name, " ".join(f"{what} {100 * each.mean.mean():.2f}" for what, each in found.items()), flush=True)

    plain: Any = tuning(here, given).client
    told("the cloud's model", scores(plain, {"params": here.params}, fresh, here.held))
    last = sum(leaf.size for leaf in here.params["head"].values())
    if "patch" in given.grids:
        for size, lr, epochs in itertools.product((4, 8, 16, last), (0.03, 0.1, 0.3, 1.0), (2, 10)):
            if size <= last:
                made = patching(here, given, size=size, lr=lr)
                told(
                    f"patch {size} lr {lr} x {epochs}",
                    scores(*personal(made, here.params, fresh, seed, epochs), here.held),
                )
    if "tune" in given.grids:
        for lr, epochs in itertools.product((0.003, 0.01, 0.03, 0.1, 0.3), (2, 10)):
            made = tuning(here, given, lr=lr)
            told(
                f"fine-tuning lr {lr} x {epochs}", scores(*personal(made, here.params, fresh, seed, epochs), here.held)
            )
    if "cloud" in given.grids:
        for lr in (0.03, 0.1, 0.3, 1.0):
            params, _ = lived(tuning(here, given, lr=lr, epochs=1), here, given.rounds, seed)
            told(f"FedAvg lr {lr}", scores(plain, {"params": params}, fresh, here.held))
        for alpha, lr in itertools.product((0.1, 0.5, 0.9), (0.01, 0.1, 0.3)):
            changed = argparse.Namespace(**{**vars(given), "alpha": alpha, "cloud_lr": lr})
            params, _ = lived(patching(here, changed, epochs=given.round_epochs), here, given.rounds, seed)
            told(f"cloud after alpha {alpha} lr {lr}", scores(plain, {"params": params}, fresh, here.held))


def main() -> None:
    """Choose, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--choose", type=int, help="a seed: print grids on its calibration users, and no tables")
    parser.add_argument("--grids", default="patch,tune,cloud")
    parser.add_argument("--net", choices=("ncf", "towers"), default="ncf")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--people", type=int, default=0, help="who learn, at most; 0 is all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20000, help="of the cloud's own, for MoMoDistill")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=10, help="of the last training of a patch")
    parser.add_argument("--round-epochs", type=int, default=2, help="of a patch in a round")
    parser.add_argument("--public", type=int, default=0, help="users who taught the cloud's model; 0 is all")
    parser.add_argument("--alpha", type=float, default=0.5, help="the share of labels")
    parser.add_argument("--cloud-lr", type=float, default=0.01)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--tune-lr", type=float, default=0.1)
    parser.add_argument("--tune-epochs", type=int, default=10)
    parser.add_argument("--fedavg-lr", type=float, default=0.03)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.choose is not None:
        choose(given.choose, given)
    else:
        report(given)


if __name__ == "__main__":
    main()
