"""What features give away: reconstruction against depth, and each defence against who does not know it and who does.

    DUETTO_DATA=... OMP_NUM_THREADS=1 python benchmarks/split/leakage.py FOLDER             # five seeds, goes on
    DUETTO_DATA=... OMP_NUM_THREADS=1 python benchmarks/split/leakage.py FOLDER --report    # the tables, Markdown

Handwriting: a small network learns the employees' labels; decoders learn from 6,000 of the employees' images and are
judged on students, eight images each, whom neither has seen. The naive attacker's decoder learned from undefended
features of the same cut, the adaptive one's from what really arrives. Weights of the trained defences were set by
looking at calibration users of seed 100.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from duetto import tree as trees
from duetto.attacks.inversion import Inversion, Inverted
from duetto.attacks.release import Release, View, crossing, features
from duetto.attacks.release import view as seen_through
from duetto.attacks.search import Search
from duetto.codecs import Quantise
from duetto.evaluation import leakage, users
from duetto.models import Net, Staged, stage
from duetto.models.bottleneck import Bottlenecked
from duetto.models.net import built, fitting
from duetto.programs.leak_people import GUESSES, People, guessed
from duetto.tasks import Task, load
from duetto.training import Adam, Client, CrossEntropy, sequential
from duetto.training.adversary import Adversary, Guarded
from duetto.training.nopeek import NoPeek
from duetto.training.rate import Rated
from duetto.tree import Tree

CUT = 6  # where defences are compared: after the second pooling, 7x7 positions of 32 channels, of 11 stages
DEPTHS = (1, 3, 6, 9, 11)  # 11 is the answer itself
CODED = (3, 6, 9)
INT4 = Release(Quantise(4, "channel"))
PEEK, STRENGTH = 5.0, 50.0  # weight of the distance correlation; strength of the reversed gradients
NECK = {"channels": 4, "downsampling": 4, "bits": 4, "width": 12}  # 7x7 codes of 4 bits, 98 bytes before any coder
SEARCHED = 99  # users of whom one image is searched for by the white-box attacker
EPOCHS = 2


@dataclass(frozen=True, eq=False)
class Way:
    """One way to send: what arrives, and the logits that the cloud makes of it."""

    arrives: View
    logits: Callable[[np.ndarray], np.ndarray]
    numbers: int
    bits: float


@dataclass(frozen=True, eq=False)
class Seed:
    """A seed's people and networks, the latter kept in a folder."""

    task: Task
    people: People
    folder: Path

    @property
    def net(self) -> Net:
        """The small network of the task."""
        return self.task.small

    def learned(self, name: str, net: Net, loss: tuple[Any, ...], start: Tree) -> Tree:
        """Parameters after training on the employees' labels."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            public = self.task.public
            client = Client(net, loss, Adam(3e-3, schedule="cosine"), EPOCHS, 64)
            data = {"x": public.x, "y": public.y}
            found = sequential.run(client, {"params": start}, data, (self.task.seed, "leakage", name)).params
            path.write_bytes(trees.encode(found))
        return trees.decode(path.read_bytes())

    def plain(self) -> Tree:
        """The undefended network."""
        return self.learned("plain", self.net, (CrossEntropy(),), self.net.init(self.task.seed))

    def staged(self, params: Tree) -> Staged:
        """A network of these parameters, as stages."""
        module = built(self.net)
        module.load_state_dict(fitting(self.net, params))
        return stage(module, np.zeros((2, *self.net.shape), np.float32), proof="stages")

    def peeked(self) -> Tree:
        """Trained with the distance correlation beside its loss."""
        front = self.staged(self.net.init(self.task.seed))[:CUT]
        return self.learned("nopeek", self.net, (CrossEntropy(), NoPeek(front, PEEK)), self.net.init(self.task.seed))

    def guarded(self) -> Tree:
        """Trained against a decoder."""
        net = Guarded(self.net, CUT, STRENGTH)
        start = net.around(self.net.init(self.task.seed), self.task.seed)
        loss = (Adversary((CrossEntropy(),), self.net.classes),)
        return self.learned("adversary", net, loss, start)["whole"]  # type: ignore[call-overload, index, no-any-return]

    def necked(self) -> tuple[Bottlenecked, Tree]:
        """A bottleneck in place of the stages before the cut, around the trained network."""
        net = Bottlenecked(self.net, CUT, **NECK)  # type: ignore[arg-type]
        start = net.around(self.plain(), self.task.seed)
        return net, self.learned("bottleneck", net, (Rated((CrossEntropy(),), 0.0),), start)


def split(staged: Staged, cut: int, release: Release, bits: float = 32) -> Way:
    """A cut of a network, released so."""
    half = staged[:cut]

    def logits(given: np.ndarray) -> np.ndarray:
        return given if cut == len(staged) else next(iter(staged[cut:](crossing(half, given)).values()))

    numbers = sum(math.prod(leaf.shape) for leaf in staged.frontier(cut).values())
    return Way(seen_through(half, release), logits, numbers, bits)


def ways(seed: Seed) -> dict[str, Callable[[], Way]]:
    """All that are measured, built when they are needed."""
    plain = seed.staged(seed.plain())

    def defended(params: Callable[[], Tree], release: Release, bits: float = 32) -> Callable[[], Way]:
        return lambda: split(seed.staged(params()), CUT, release, bits)

    def neck() -> Way:
        net, params = seed.necked()
        codes = math.prod(net.code)
        return Way(
            lambda x, key: net.encode(params, x).astype(np.float32),
            lambda given: net.decode(params, np.rint(given).astype(np.uint8)),
            codes,
            net.bits,
        )

    found: dict[str, Callable[[], Way]] = {}
    for cut in DEPTHS:
        found[f"cut {cut}"] = partial(split, plain, cut, Release())
    for cut in CODED:
        found[f"cut {cut} + int4"] = partial(split, plain, cut, INT4, 4)
    return found | {
        "clip to half the norm (control)": defended(seed.plain, Release(clip=half_norm(seed))),
        "int2": defended(seed.plain, Release(Quantise(2, "channel")), 2),
        "noise 1": defended(seed.plain, Release(noise=1.0)),
        "noise 3": defended(seed.plain, Release(noise=3.0)),
        "NoPeek": defended(seed.peeked, Release()),
        "adversarial": defended(seed.guarded, Release()),
        "bottleneck + int4": neck,
    }


def half_norm(seed: Seed) -> float:
    """Half the median norm of undefended features at the cut: what a control clips to."""
    found = features(seed.staged(seed.plain())[:CUT], seed.people.public[:500])
    return float(np.median(np.linalg.norm(found.reshape(len(found), -1), axis=1))) / 2


def measured(
    seed: Seed, name: str, way: Way, naive: Inverted | None, attack: Inversion
) -> tuple[dict[str, Any], Inverted]:
    """Figures of a way, and the decoder that knows it."""
    people = seed.people
    decoder = attack.fit(way.arrives, people.public, (*people.key, "decoder", name))
    rows, owner = seed.task.group("unseen")
    key = (*people.key, "arrives")
    given, own = way.arrives(rows.x, key), way.arrives(people.x, key)
    right = way.logits(given).reshape(len(rows), -1).argmax(1) == rows.y
    told: dict[str, Any] = {
        "name": name,
        "accuracy": users.by(right * 1.0, owner).mean.tolist(),
        "numbers": way.numbers,
        "bits": way.bits,
        "adaptive": people.nearness(decoder.guess(own)),
    }
    if naive is not None:
        told["naive"] = people.nearness(naive.guess(own))
    return told, decoder


def searched(seed: Seed, release: Release, knowing: bool) -> dict[str, Any]:
    """The white-box attacker at the cut, on one image of some users."""
    half, people = seed.staged(seed.plain())[:CUT], seed.people
    first = np.unique(people.owner, return_index=True)[1][:SEARCHED]
    x = people.x[first]
    given = release(features(half, x), (*people.key, "arrives"))
    attack = Search(200, 0.1, within=(0.0, 1.0))
    guess = attack.guess(half, given, people.public.mean(0), (*people.key, "search"), release if knowing else None)
    found = {"ssim": leakage.ssim(x, guess).tolist(), "psnr": leakage.psnr(x, guess).tolist()}
    return {"adaptive": found}


def run(folder: Path, number: int, attack: Inversion, only: tuple[str, ...]) -> None:
    """The ways of a seed that are not there yet, or those whose names begin so."""
    place = folder / f"seed-{number}"
    place.mkdir(parents=True, exist_ok=True)
    task = load("handwriting", number)
    seed = Seed(task, People.of(task, 6000, 8), place)
    if not (place / "guesses.json").exists():
        keep(place / "guesses.json", guessed(seed.people, seed.staged(seed.plain())))
    plain: dict[int, Inverted] = {}
    for name, make in ways(seed).items():
        path = place / f"{name.replace(' ', '-')}.json"
        cut = int(name.split()[1]) if name.startswith("cut") else CUT
        if path.exists() or not name.startswith(only):
            continue
        if cut not in plain and name != f"cut {cut}":
            undefended = split(seed.staged(seed.plain()), cut, Release())
            plain[cut] = attack.fit(undefended.arrives, seed.people.public, (*seed.people.key, "decoder", f"cut {cut}"))
        told, decoder = measured(seed, name, make(), plain.get(cut) if not name.startswith("bott") else None, attack)
        if name == f"cut {cut}":
            plain[cut], told["naive"] = decoder, told["adaptive"]
        keep(path, told)
        print(f"seed {number}, {name}: {np.mean(told['adaptive']['ssim']):.3f}", file=sys.stderr, flush=True)
    clip = Release(clip=half_norm(seed))
    for name, release, knowing in (
        ("search, undefended", Release(), False),
        ("search, clip, blind (control)", clip, False),
        ("search, clip, knowing (control)", clip, True),
    ):
        path = place / f"{name.replace(' ', '-')}.json"
        if not path.exists() and name.startswith(only):
            keep(path, {**searched(seed, release, knowing), "name": name})


def keep(path: Path, told: dict[str, Any]) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told))
    part.replace(path)


def report(folder: Path) -> None:
    """The table of all seeds that are there."""
    found: dict[str, list[dict[str, Any]]] = {}
    places = sorted(folder.glob("seed-*"))
    for place in places:
        for path in sorted(place.glob("*.json")):
            told = json.loads(path.read_text())
            each = [{"name": n, "adaptive": told[n]} for n in GUESSES] if path.stem == "guesses" else [told]
            for one in each:
                found.setdefault(one["name"], []).append(one)
    answer = [_ssim(one["adaptive"]) for one in found[GUESSES[1]]]
    order = [f"cut {cut}{more}" for cut in DEPTHS for more in ("", " + int4")]
    order += sorted(set(found) - {*order}, key=lambda name: (name.startswith("search"), name in GUESSES, name))
    print(f"{len(places)} seeds; mean ± half of the 95 % t interval over seeds\n")
    print(
        "| what arrives | numbers x bits | accuracy, % | naive SSIM | adaptive SSIM | worst tenth | PSNR, dB | kept |"
    )
    print("|:--|--:|--:|--:|--:|--:|--:|--:|")
    for name in order:
        each = found.get(name, [])
        if not each:
            continue
        best = [max((one.get("naive", one["adaptive"]), one["adaptive"]), key=_ssim) for one in each]
        bare = found[name.split(" +")[0] if name.startswith("cut") else f"cut {CUT}"]
        parts = zip(best, bare, answer, strict=False)
        kept = [(_ssim(a) - c) / (_ssim(b["adaptive"]) - c) for a, b, c in parts]
        cells = [
            f"{each[0]['numbers']:,} x {each[0]['bits']:g}" if "numbers" in each[0] else "",
            over_seeds([float(np.mean(one["accuracy"])) for one in each], 100) if "accuracy" in each[0] else "",
            over_seeds([_ssim(one["naive"]) for one in each]) if "naive" in each[0] else "",
            over_seeds([_ssim(one) for one in best]),
            over_seeds([_tenth(one["ssim"]) for one in best]),
            f"{np.mean([np.mean(one['psnr']) for one in best]):.1f}",
            f"{np.mean(kept):.0%}" if "accuracy" in each[0] else "",
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def over_seeds(values: list[float], scale: float = 1.0) -> str:
    """Mean and half of its 95 % t interval over seeds."""
    digits, many = (1, len(values)) if scale == 100 else (3, len(values))
    half = stats.t.ppf(0.975, many - 1) * np.std(values, ddof=1) / math.sqrt(many) if many > 1 else math.nan
    return f"{scale * np.mean(values):.{digits}f} ± {scale * half:.{digits}f}"


def _ssim(nearness: dict[str, list[float]]) -> float:
    return float(np.mean(nearness["ssim"]))


def _tenth(values: list[float]) -> float:
    return float(leakage.most(users.PerUser(np.arange(len(values)), np.ones(len(values)), np.array(values))))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=4, help="of a decoder; 94 steps each")
    parser.add_argument("--only", nargs="*", default=[""], help="ways whose names begin so")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.report:
        for number in asked.seeds:
            run(asked.folder, number, replace(Inversion(), epochs=asked.epochs), tuple(asked.only))
    report(asked.folder)


if __name__ == "__main__":
    main()
