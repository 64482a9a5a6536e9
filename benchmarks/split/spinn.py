"""SPINN's trade (Laskaridis et al. 2020): exits, a split and an 8-bit codec, at the accuracy of the whole network.

    python benchmarks/split/spinn.py --cache nets --seeds 0 1 2 --json spinn.json

The residual network of ``nets.py`` gets exits after 41 % and 70 % of its work and is trained on with them. Thresholds
are the lowest at which the calibration images lose no more than half a point against the network without exits, and
the cut of every row is chosen on them too; the test images are only scored. Beside it stands what the promise of
:class:`duetto.policies.Exits` leaves: half a point against the own final exit, each image a user. What is computed by
device and cloud costs what the roofline of ``duetto/profiles.toml`` says, one overhead a call; what crosses is encoded
for each image by itself. Time to encode is left out, on both sides.

Without exits the network is the backbone as it was; *cloud only* sends the pixels, as they are, packed with Zstandard
or as PNG, whichever is least.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import Images, images, trained

from duetto import tree as trees
from duetto.codecs import Quantise, Zstd
from duetto.models import Branched, Staged, stage
from duetto.models.net import built, fitting
from duetto.policies import Calibrated, Exits, RiskControlled
from duetto.simulation.energy import Profile, compute, prices, profiles
from duetto.training import Adam, Client, Crop, CrossEntropy, EveryExit, SelfDistil, sequential
from duetto.tree import Tree
from duetto.types import Action, Chain, Held, Outcomes, Seen, Work

AT, EPOCHS, TARGET = (10, 18), 10, 0.005
CUTS = (10, 18, 27)  # where what crosses is no more than at any cut before: after each block, and the last mean
CODER = Chain((Quantise(8), Zstd(1)))
LOSS = (EveryExit(CrossEntropy(), (1.0, 1.0, 1.0)), SelfDistil(0.3, 3.0))
NETWORKS = {"3g": (1.0, 0.1), "4g": (5.6, 0.05), "wifi": (20.0, 0.02), "5g": (77.0, 0.02)}  # Mbit/s up, seconds RTT
DEVICES = {name: profiles()[name] for name in ("microcontroller", "low-end-phone", "raspberry-pi-4", "mid-phone")}
CLOUD = profiles()["cloud-gpu"]
PRICE = prices()["default"]


@dataclass(frozen=True, eq=False)
class Way:
    """One way to answer a set of images, before it is known on which device and network.

    Attributes:
        right: [n] whether the answer that is given is right.
        bytes: [n] sent; 0 where nothing is.
        device, cloud: [n, 2] flops and bytes of memory.
        reached: exit by exit, (work on the device until its answer [2], [n] right or not, [n] who got there).
    """

    right: np.ndarray
    bytes: np.ndarray
    device: np.ndarray
    cloud: np.ndarray
    reached: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def seconds(self, device: Profile, network: tuple[float, float]) -> np.ndarray:
        """[4, n] at the device, sending, on the way however little is sent, and in the cloud."""
        mbps, rtt = network
        asked = self.bytes > 0
        on_device = _seconds(device, self.device)
        return np.stack([on_device, self.bytes * 8 / mbps / 1e6, asked * rtt, asked * _seconds(CLOUD, self.cloud)])

    def dollars(self) -> float:
        """Mean of an answer."""
        asked = self.bytes > 0
        seconds = asked * _seconds(CLOUD, self.cloud)
        return float((asked * PRICE.per_call + seconds * PRICE.per_cloud_second).mean())


def _seconds(profile: Profile, work: np.ndarray) -> np.ndarray:
    pairs, which = np.unique(work, axis=0, return_inverse=True)
    each = [compute(profile, Work(*pair))[0] if any(pair) else 0.0 for pair in pairs.tolist()]
    return np.array(each)[which.reshape(-1)]


def tuned(folder: Path, seed: int) -> tuple[Branched, Tree]:
    """The residual network with exits, trained on from the trained backbone where the folder lacks it."""
    net, params = trained("residual", folder)
    branched, path = Branched(net, AT, 64), folder / f"residual-exits-{seed}.safetensors"
    if not path.exists():
        data = images()["train"]
        client = Client(branched, LOSS, Adam(1e-3, schedule="cosine"), EPOCHS, 64, augment=Crop(4))

        def shown(step: int, steps: int) -> None:
            if step % 100 == 0:
                print(f"exits seed {seed}: {step} of {steps}", file=sys.stderr, flush=True)

        start = {"params": branched.grown(params, seed)}
        rows = {"x": data.x, "y": data.y}
        path.write_bytes(trees.encode(sequential.run(client, start, rows, (seed, "split", "exits"), shown).params))
    return branched, trees.decode(path.read_bytes())


def walked(net: Staged, features: Tree, start: int, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """(cut, logits [n, classes]) of each exit after ``start``, and of the end."""
    done, carried = start, features
    for cut in (*[cut for cut in net.exits if cut > start], len(net)):
        carried, done = between(net, done, cut, carried, n), cut
        yield cut, (carried if cut == len(net) else net.exits[cut](carried))["logits"]


def crossing(features: Tree, n: int) -> tuple[Tree, np.ndarray]:
    """What arrives of features after the codec, and the bytes of each row."""
    sizes, arrived = [], []
    for i in range(n):
        _, coded = CODER.encode(CODER.init(), {k: v[i : i + 1] for k, v in features.items()}, ())
        sizes.append(trees.size(trees.spec(coded)))
        arrived.append(CODER.decode(coded))
    return {k: np.concatenate([each[k] for each in arrived]) for k in features}, np.array(sizes, float)


def between(net: Staged, start: int, cut: int, features: Tree, n: int) -> Tree:
    """The features after a cut, from those after one before."""
    parts = [net[start:cut]({k: v[i : i + 250] for k, v in features.items()}) for i in range(0, n, 250)]
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def pixels(data: Images) -> dict[str, np.ndarray]:
    """Bytes of each image: as it is, by Zstandard, as PNG."""
    from PIL import Image

    found: dict[str, list[int]] = {"raw": [], "zstd": [], "png": []}
    for each in data.pixels:
        found["raw"].append(each.nbytes)
        found["zstd"].append(trees.size(trees.spec(Zstd(9).encode({}, {"x": each}, ())[1])))
        written = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(each.transpose(1, 2, 0))).save(written, "png")
        found["png"].append(len(written.getvalue()))
    return {name: np.array(sizes, float) for name, sizes in found.items()}


def amounts(works: list[Work]) -> np.ndarray:
    """[2] their sum."""
    return np.array([sum(work.flops for work in works), sum(work.bytes for work in works)])


def until(net: Staged, cut: int) -> np.ndarray:
    """[2] the work of all stages and exits until a cut, with its own exit."""
    return amounts([net[:cut].work(), *(exit.work() for at, exit in net.exits.items() if at <= cut)])


def fitted(logits: dict[int, np.ndarray], y: np.ndarray) -> Held[Any]:
    """Exits with a promise, on calibration images."""
    *early, final = logits
    outcomes = {cut: Outcomes.of_classifiers(logits[cut], logits[final], y) for cut in early}
    return Exits(RiskControlled(Calibrated(), "expected", TARGET)).fit(outcomes)


def lowered(held: Held[Any], logits: dict[int, np.ndarray], y: np.ndarray, least: float) -> Held[Any]:
    """The same with the lowest threshold, reached from "never early", that keeps ``least`` right on these images."""
    *early, _ = logits
    scores = [held.part.scores(held.state, Seen(stage=k, answer=logits[k], size=len(y))) for k in early]
    for at in np.quantile(np.concatenate(scores), np.linspace(1, 0, 201)):
        lower = Held(held.part, {**held.state, "threshold": np.array(at)})
        left = left_at(lower, logits)
        if np.mean([logits[cut][i].argmax() == y[i] for i, cut in enumerate(left)]) < least:
            break
        held = lower
    return held


def left_at(held: Held[Any] | None, logits: dict[int, np.ndarray]) -> np.ndarray:
    """[n] the cut at which each image's answer stands."""
    *early, final = logits
    found = np.full(len(logits[final]), final)
    for cut in reversed(early if held else []):
        assert held is not None
        stops = held.choose(Seen(stage=cut, answer=logits[cut], size=len(found)), ()).action == Action.STOP
        found[stops] = cut
    return found


def ways(net: Staged, held: Held[Any] | None, data: Images, here: dict[int, np.ndarray]) -> dict[str, Way]:
    """Every way to answer with this network and these exits: here, or from a cut on in the cloud."""
    n, x, y = len(data.y), data.x, data.y
    left = left_at(held, here)
    cost = {cut: until(net, cut) for cut in (*net.exits, len(net))}
    given = np.stack([here[cut][i] for i, cut in enumerate(left)])
    device = np.stack([cost[cut] for cut in left])
    reached = [(cost[cut], logits.argmax(1) == y, left >= cut) for cut, logits in here.items()]
    nothing = np.zeros((n, 2))
    found = {"device": Way(given.argmax(1) == y, np.zeros(n), device, nothing, reached)}
    carried: Tree = {"x": x}
    for start, cut in pairwise((0, *CUTS)):
        carried = between(net, start, cut, carried, n)
        features, sizes = crossing(carried, n)
        beyond = {at: logits for at, logits in here.items() if at <= cut} | dict(walked(net, features, cut, n))
        left = left_at(held, beyond)
        asked = left > cut
        right = np.array([beyond[at][i].argmax() == y[i] for i, at in enumerate(left)])
        before = amounts([net[:cut].work(), *(e.work() for at, e in net.exits.items() if at <= cut)])
        device = np.stack([before if ask else cost[at] for at, ask in zip(left, asked, strict=True)])
        cloud = np.stack([cost[at] - before if ask else np.zeros(2) for at, ask in zip(left, asked, strict=True)])
        early = [each for at, each in zip(here, reached, strict=True) if at <= cut]
        found[f"cut {cut}"] = Way(right, sizes * asked, device, cloud, early)
    return found


def best(found: dict[str, Way], device: Profile, network: tuple[float, float], least: float) -> str:
    """The fastest way, one answer after the other, of those at least so accurate on these images; else the first."""
    fine = [name for name, way in found.items() if way.right.mean() >= least] or list(found)[:1]
    return min(fine, key=lambda name: found[name].seconds(device, network).sum(0).mean())


def told(way: Way, device: Profile, network: tuple[float, float]) -> dict[str, float]:
    """What is reported of a way."""
    seconds = way.seconds(device, network)
    return {
        "accuracy": float(way.right.mean()),
        "milliseconds": float(seconds.sum(0).mean() * 1e3),
        "answers_a_second": float(1 / seconds.sum(0).mean()),
        "pipelined_a_second": float(1 / seconds.mean(1)[[0, 1, 3]].max()),  # one part of the way beside another
        "asked": float((way.bytes > 0).mean()),
        "up_bytes": float(way.bytes.mean()),
        "cloud_mflop": float(way.cloud[:, 0].mean() / 1e6),
        "dollars_a_million": way.dollars() * 1e6,
    }


def without(folder: Path) -> dict[str, dict[str, Way]]:
    """The ways of the network without exits, on calibration and test images."""
    backbone, params = trained("residual", folder)
    module = built(backbone)
    module.load_state_dict(fitting(backbone, params))
    plain = stage(module, torch.zeros((2, *backbone.shape)), proof="stages")
    data = images()
    here = {part: dict(walked(plain, {"x": data[part].x}, 0, len(data[part].y))) for part in ("calibration", "test")}
    return {part: ways(plain, None, data[part], here[part]) for part in here}


def measured(folder: Path, seed: int, split: dict[str, dict[str, Way]], sizes: dict[str, np.ndarray]) -> dict[str, Any]:
    """All rows of one seed; ``sizes`` of the test images."""
    data = images()
    branched, learned = tuned(folder, seed)
    net = branched.staged(learned)
    logits = {part: dict(walked(net, {"x": data[part].x}, 0, len(data[part].y))) for part in split}
    promised = fitted(logits["calibration"], data["calibration"].y)
    whole = {part: split[part]["device"] for part in split}
    least = float(whole["calibration"].right.mean()) - TARGET
    held = lowered(
        Held(promised.part, {**promised.state, "threshold": np.array(np.inf)}),
        logits["calibration"],
        data["calibration"].y,
        least,
    )
    early = {part: ways(net, held, data[part], logits[part]) for part in split}
    test, here = data["test"], logits["test"]
    report: dict[str, Any] = {
        "seed": seed,
        "sentence": promised.part.promised(promised.state),
        "whole": float(whole["test"].right.mean()),
        "exits": {cut: float((each.argmax(1) == test.y).mean()) for cut, each in here.items()},
        "left": {cut: float((left_at(held, here) == cut).mean()) for cut in here},
        "bytes": {name: float(each.mean()) for name, each in sizes.items()},
        "cuts": {
            name: {"without": float(split["test"][name].bytes.mean()), "asked": float((way.bytes > 0).mean())}
            for name, way in early["test"].items()
        },
        "rows": [],
        "deadlines": [],
    }
    right = whole["test"].right.astype(float)
    lost = right - early["test"]["device"].right
    safe = ways(net, promised, test, here)
    final = here[len(net)].argmax(1) == test.y
    report["promised"] = {
        "early": float((left_at(promised, here) < len(net)).mean()),
        "lost": float(final.mean() - safe["device"].right.mean()),
    }
    report["lost"] = [float(lost.mean()), float(1.96 * lost.std() / len(lost) ** 0.5)]
    smallest = min(sizes, key=lambda name: sizes[name].mean())
    n = len(test.y)
    alone = {
        name: Way(whole["test"].right, sizes[name], np.zeros((n, 2)), whole["test"].device)
        for name in ("raw", smallest)
    }
    report["cloud"] = {
        name: [way.dollars() * 1e6, float(way.cloud[:, 0].mean() / 1e6), float(way.right.mean())]
        for name, way in {"only": alone["raw"], **early["test"]}.items()
    }
    report["promised"] |= {
        "cloud": {
            name: [way.dollars() * 1e6, float(way.cloud[:, 0].mean() / 1e6), float(way.right.mean())]
            for name, way in safe.items()
        },
        "milliseconds on the device": {
            name: float(safe["device"].seconds(profile, (1.0, 0.0)).sum(0).mean() * 1e3)
            for name, profile in DEVICES.items()
        },
    }
    for device, profile in DEVICES.items():
        for network, link in NETWORKS.items():
            chosen = best(split["calibration"], profile, link, least)
            walk = best(early["calibration"], profile, link, least)
            inside = {name: way for name, way in early["calibration"].items() if name != "device"}
            shared = best(inside, profile, link, least)
            report["rows"].append(
                {
                    "device": device,
                    "network": network,
                    "cloud only, raw": told(alone["raw"], profile, link),
                    "cloud only, packed": told(alone[smallest], profile, link),
                    "device only": told(whole["test"], profile, link),
                    "split": {"cut": chosen, **told(split["test"][chosen], profile, link)},
                    "exits": {"cut": walk, **told(early["test"][walk], profile, link)},
                    "exits and cloud": {"cut": shared, **told(early["test"][shared], profile, link)},
                }
            )
    for device, network in (("microcontroller", "4g"), ("low-end-phone", "4g")):
        report["deadlines"].append(
            curve(
                device,
                network,
                alone[smallest],
                split["test"]["device"],
                early["test"]["device"],
                early["test"]["cut 18"],
            )
        )
    return report


def curve(device: str, network: str, cloud: Way, whole: Way, exits: Way, both: Way) -> dict[str, Any]:
    """Share of right answers at each deadline; no answer yet is a wrong one."""
    profile, link = DEVICES[device], NETWORKS[network]
    at_cloud, at_end = cloud.seconds(profile, link).sum(0), whole.seconds(profile, link).sum(0)
    at_both = both.seconds(profile, link).sum(0)
    early = [
        [(compute(profile, Work(*work.tolist()))[0], right, got) for work, right, got in each.reached]
        for each in (both, exits)
    ]
    seconds = np.concatenate([at_cloud, at_end, at_both])
    marks = np.append(np.quantile(seconds, np.linspace(0, 1, 7)), [at for at, *_ in early[1]])
    rows = []
    for deadline in np.unique(np.ceil(marks * 1e4) / 1e4):
        answers = [np.zeros(len(at_both), bool) for _ in early]
        for found, each in zip(answers, early, strict=True):
            for at, right, got in each:
                if at <= deadline:
                    found[got] = right[got]
        rows.append(
            {
                "seconds": float(deadline),
                "cloud only": float((cloud.right & (at_cloud <= deadline)).mean()),
                "device only": float((whole.right & (at_end <= deadline)).mean()),
                "exits": float(answers[1].mean()),
                "exits and cloud": float(np.where(at_both <= deadline, both.right, answers[0]).mean()),
            }
        )
    return {"device": device, "network": network, "rows": rows}


def shown(report: dict[str, Any]) -> None:
    """As tables."""
    print(f"\nseed {report['seed']}: whole {report['whole']:.2%}, exits {report['exits']}, left {report['left']}")
    lost, around = report["lost"]
    print(f"lost against the whole network: {100 * lost:+.2f} points +- {100 * around:.2f}")
    print(f"with the promise: {report['promised']}. {report['sentence']}")
    print(f"bytes of an image {report['bytes']}; at cuts {report['cuts']}")
    names = ("cloud only, raw", "cloud only, packed", "device only", "split", "exits", "exits and cloud")
    print(f"| device | network | {' | '.join(f'{name}, ms (/s)' for name in names)} | right: exits, and cloud |")
    for row in report["rows"]:
        times = [
            (row[name]["milliseconds"], row[name]["pipelined_a_second"], row[name].get("cut", "")) for name in names
        ]
        cells = [f"{each:.1f} ({many:.0f}) {cut}".strip() for each, many, cut in times]
        right = ", ".join(f"{row[name]['accuracy']:.2%}" for name in names[-2:])
        print(f"| {row['device']} | {row['network']} | {' | '.join(cells)} | {right} |")
    print(f"cloud, of one answer (millionths of a dollar, MFLOP, share right): {report['cloud']}")
    for each in report["deadlines"]:
        print(f"\n{each['device']}, {each['network']}: right in time")
        for row in each["rows"]:
            print("  " + ", ".join(f"{name} {value:.4g}" for name, value in row.items()))


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of trained networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    split, sizes, reports = without(chosen.cache), pixels(images()["test"]), []
    for seed in chosen.seeds:
        reports.append(measured(chosen.cache, seed, split, sizes))
        shown(reports[-1])
        if chosen.json:
            chosen.json.write_text(json.dumps(reports, indent=1))


if __name__ == "__main__":
    main()
