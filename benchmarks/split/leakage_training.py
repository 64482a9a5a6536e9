"""What training gives away: labels from slopes, an input from its gradient, who was trained on.

    DUETTO_DATA=... OMP_NUM_THREADS=1 python benchmarks/split/leakage_training.py FOLDER    # three seeds, goes on

Handwriting and its small network. Labels: slopes at the second pooling of 400 students' images, ten known slopes a
class; and the gradients of 50 single images. Gradients: one image of each of two students, whose label is known.
Membership: 600 images of unseen students, half of them trained on for 20 epochs; 8 shadow models on halves of the same
600, so that 0.1 % of the others is less than one of them: the threshold accuses nobody wrongly. Hijacking: a cloud that
knows 6,000 employees' images leads the training of a fresh device's half on 2,000 students' for 1,500 steps.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from duetto import tree as trees
from duetto.attacks import labels, membership
from duetto.attacks.gradients import Clip, Matching
from duetto.attacks.hijacking import Hijack, Hijacking
from duetto.attacks.release import Release
from duetto.codecs import Quantise
from duetto.evaluation import leakage
from duetto.models import Net, stage
from duetto.models.net import built, fitting
from duetto.tasks import Task, load
from duetto.training import SGD, Adam, Client, CrossEntropy, gradient, sequential
from duetto.training.split import forward, learnable, learned, stepped
from duetto.tree import Tree
from duetto.types import Key, rng

CUT, STEPS = 6, 1500


def trained(task: Task, epochs: int) -> Tree:
    """The small network after so many passes over the employees' images."""
    start = task.small.init(task.seed)
    client = Client(task.small, (CrossEntropy(),), Adam(3e-3, schedule="cosine"), epochs, 64)
    data = {"x": task.public.x, "y": task.public.y}
    return sequential.run(client, {"params": start}, data, (task.seed, "first")).params if epochs else start


def of_labels(task: Task) -> dict[str, float]:
    """Share of labels told by ten known slopes a class, of a fresh and of a trained network, slopes coded or not."""
    rows, _ = task.group("unseen")
    draw = rng((task.seed, "slopes")).permutation(len(rows))[:500]
    x, y = np.asarray(rows.x[draw], np.float32), rows.y[draw]
    known = np.concatenate([np.flatnonzero(y == c)[:10] for c in range(10)])
    rest = np.setdiff1d(np.arange(len(y)), known)
    found = {"guessing": float(np.bincount(y[rest]).max() / len(rest))}
    for name, epochs in (("fresh", 0), ("trained", 1)):
        module = built(task.small)
        module.load_state_dict(fitting(task.small, trained(task, epochs)))
        staged = stage(module, x[:2], proof="stages")
        front, back = staged[:CUT], staged[CUT:]
        crossing = front({next(iter(front.inputs)): x})
        _, _, slopes, _ = learned(back, learnable(back), crossing, y, SGD(0.0), {}, 0, 1)
        seen = next(iter(slopes.values()))
        releases = {"": Release(), ", int4": Release(Quantise(4, "channel")), ", noise 1": Release(noise=1.0)}
        for more, release in releases.items():
            sent = release(seen, (task.seed, "sent"))
            said = labels.clustered(sent[rest], sent[known], y[known])
            found[f"{name}{more}"] = float((said == y[rest]).mean())
    found["update of one row"] = float(np.mean([told(task, x[i : i + 1], y[i : i + 1]) for i in range(50)]))
    return found


def told(task: Task, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the update of a fresh network tells the label of its one row."""
    net, params = task.small, task.small.init(task.seed)
    client = Client(net, (CrossEntropy(),), SGD(0.1), 1, 1)
    sent = gradient(client, params, {"params": params}, {"x": x, "y": y}, (0,))
    (bias,) = [
        leaf for pointer, leaf in trees.leaves(sent) if pointer.endswith("bias") and leaf.shape == (net.classes,)
    ]
    return labels.of_update(bias) == int(y[0])


def noised(tree: Tree, deviation: float, key: Key) -> Tree:
    """With normal noise on every number."""
    draw = rng((*key, "noise"))
    return trees.map(lambda leaf: leaf + (deviation * draw.standard_normal(leaf.shape)).astype(np.float32), tree)


def of_gradients(task: Task) -> dict[str, float]:
    """PSNR of inputs from their gradients, in dB."""
    rows, owner = task.group("unseen")
    first = np.unique(owner, return_index=True)[1][:2]
    net, params = task.small, task.small.init(task.seed)
    client = Client(net, (CrossEntropy(),), SGD(0.1), 1, 1)
    attack = Matching("cosine", 200, 1, 0.1, 1e-4, (0.0, 1.0))
    distance = replace(attack, by="distance", steps=200, smooth=0.0)
    found: dict[str, list[float]] = {}
    for i in first.tolist():
        x, y = np.asarray(rows.x[i : i + 1], np.float32), np.asarray(rows.y[i : i + 1])
        sent = gradient(client, params, {"params": params}, {"x": x, "y": y}, (0,))
        size = trees.norm(sent)
        clip, scaled = Clip(size / 10), trees.scale(sent, 0.1)
        count = sum(leaf.size for _, leaf in trees.leaves(sent))
        ways = {
            "cosine": (attack, sent, None),
            "distance": (distance, sent, None),
            "distance, clipped, naive": (distance, scaled, None),
            "distance, clipped, adaptive": (distance, scaled, clip),
        }
        for share in (0.1, 1.0):
            ways[f"cosine, noise {share:g}"] = (
                attack,
                noised(sent, share * size / math.sqrt(count), (i, f"{share}")),
                None,
            )
        for name, (how, given, defence) in ways.items():
            guess = how.guess(net, params, given, y, (task.seed, "match"), defence)
            found.setdefault(name, []).append(float(leakage.psnr(x, guess)[0]))
        mean = task.public.x.mean(0, keepdims=True)
        found.setdefault("mean public input", []).append(float(leakage.psnr(x, mean)[0]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def of_members(task: Task) -> dict[str, float]:
    """AUC and TPR of membership attacks on a network that was trained for long on few images."""
    rows, _ = task.group("unseen")
    draw = rng((task.seed, "members")).permutation(len(rows))[:600]
    x, y = np.asarray(rows.x[draw], np.float32), np.asarray(rows.y[draw])
    net: Net = task.small
    client = Client(net, (CrossEntropy(),), Adam(3e-3), 20, 32)
    member = np.arange(600) < 300
    target = sequential.run(client, {"params": net.init(task.seed)}, {"x": x[member], "y": y[member]}, (task.seed, "t"))
    logits = net.logits(target.params, x)
    shadows, inside = membership.Shadows(client, 8).train(x, y, (task.seed, "shadows"))
    sure = membership.confidence(logits, y)
    scores = {
        "loss": membership.by_loss(logits, y),
        "LiRA offline": membership.offline(sure, np.where(inside, np.nan, shadows)),
        "LiRA online": membership.online(sure, shadows, inside),
    }
    told = {f"{name}, AUC": leakage.auc(score, member) for name, score in scores.items()}
    told |= {f"{name}, TPR at 0.1 % FPR": leakage.tpr_at(score, member, 0.001) for name, score in scores.items()}
    right = logits.argmax(1) == y
    return told | {"accuracy of members": float(right[member].mean()), "of others": float(right[~member].mean())}


def of_hijacking(task: Task) -> dict[str, float]:
    """SSIM of 200 students' images, by a cloud that led the device's training for so many steps; and without it."""
    rows, _ = task.group("unseen")
    draw = rng((task.seed, "hijacked")).permutation(len(rows))[:2000]
    private = np.asarray(rows.x[draw], np.float32)
    public = np.asarray(task.public.x[:6000], np.float32)
    front = stage(built(task.small, task.seed).eval(), private[:2], proof="stages")[:CUT]
    ((taken,), (given,)) = tuple(front.inputs), tuple(front.outputs)
    shown, found = private[:200], dict[str, float]()

    def guessed(cloud: Hijacking, params: Tree) -> float:
        return float(leakage.ssim(shown, cloud.guess(forward(front, params, {taken: shown})[given])).mean())

    for name, half in (("a pilot of its own", None), ("the half that it gave out", front)):
        cloud = Hijack(width=256, positive=True).start(public, front.gives(1)[given].shape[1:], (task.seed,), half)
        params, state, optimiser = learnable(front), {}, Adam(1e-3)
        chance = rng((task.seed, "batches"))
        for step in range(STEPS):
            batch = {taken: private[chance.integers(0, len(private), 64)]}
            slopes = {given: cloud.slopes(forward(front, params, batch)[given])}
            params, state, _ = stepped(front, params, batch, slopes, optimiser, state, step, STEPS)
        found[f"{name}: device that followed"] = guessed(cloud, params)
        found[f"{name}: device that did not"] = guessed(cloud, learnable(front))
    mean = np.repeat(public.mean(0)[None], len(shown), 0)
    return found | {"mean public input": float(leakage.ssim(shown, mean).mean())}


PARTS: dict[str, Callable[[Task], dict[str, float]]] = {
    "labels": of_labels,
    "gradients": of_gradients,
    "members": of_members,
    "hijacking": of_hijacking,
}


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in () if asked.report else asked.seeds:
        place = asked.folder / f"seed-{seed}"
        place.mkdir(parents=True, exist_ok=True)
        for name, part in PARTS.items():
            path = place / f"{name}.json"
            if not path.exists():
                path.write_text(json.dumps(part(load("handwriting", seed))))
                print(f"seed {seed}, {name}: {path.read_text()}", file=sys.stderr, flush=True)
    for name in PARTS:
        told = [json.loads(path.read_text()) for path in sorted(asked.folder.glob(f"seed-*/{name}.json"))]
        print(f"\n| {name}, {len(told)} seeds | mean ± half of the 95 % t interval |\n|:--|--:|")
        for figure in told[0] if told else ():
            values = [each[figure] for each in told]
            spread = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            half = stats.t.ppf(0.975, max(1, len(values) - 1)) * spread
            print(f"| {figure} | {np.mean(values):.3f} ± {half:.3f} |")


if __name__ == "__main__":
    main()
