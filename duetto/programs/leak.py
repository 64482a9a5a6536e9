"""What the features at each cut of a model give away, and whether a codec there hides anything.

Public people's inputs teach a decoder (:mod:`duetto.attacks.inversion`) for every cut and codec; it is then shown what
arrives of people whom nobody learned from, and judged by how near it comes, user by user. Beside every codec stands the
decoder that knows nothing of it, and beside all of them what an attacker knows without features: the mean public input,
the mean of the class that the answer names, and the public input that is nearest (no attacker knows which that is). A
run is a folder with a file for each seed, cut and codec; what is there is not done again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from duetto import tree as trees
from duetto.attacks.inversion import Inversion, Inverted
from duetto.attacks.release import Release, crossing, features
from duetto.attacks.release import view as seen_through
from duetto.codecs import Quantise
from duetto.errors import ConfigError, DataError, WireError
from duetto.evaluation import users
from duetto.models import Staged, stage
from duetto.models.net import built, fitting
from duetto.models.staged import Module
from duetto.programs.leak_people import GUESSES, SHOWN, People, guessed
from duetto.programs.plan import CODECS
from duetto.programs.saved import Saved
from duetto.tasks import Task, load, trained
from duetto.tree import Tree

Progress = Callable[[str, float, float], None]

RELEASES: Mapping[str, Release] = {
    "float32+zstd": Release(),
    "int8+zstd": Release(Quantise(8, "channel")),
    "int4+zstd": Release(Quantise(4, "channel")),
}
"""What a plan's codec does to a message of one row, whose range is its own; zstd loses nothing, so it hides nothing."""
PLAIN = "float32+zstd"


@dataclass(frozen=True)
class Settings:
    """How the attack is made.

    Attributes:
        cuts: that are attacked at most, spread over the model's work, both ends included.
        rows: public inputs that teach a decoder.
        scored: inputs of each user that are attacked, at most.
        steps: of a decoder's training at least, on 64 of them each.
        width: channels of a decoder where a position of the features is a pixel.
        redraws: of the users, for the intervals.

    Raises:
        ConfigError: fewer than three cuts, or than one of the others.
    """

    cuts: int = 8
    rows: int = 6000
    scored: int = 8
    steps: int = 600
    width: int = 12
    redraws: int = 1000

    def __post_init__(self) -> None:
        if self.cuts < 3 or min(self.rows, self.scored, self.steps, self.width, self.redraws) < 1:
            raise ConfigError(f"{self}", "look at three cuts at least, and take one at least of everything else")


@dataclass(frozen=True)
class Attack:
    """What is to be done.

    Attributes:
        task: whose people, as it is loaded by.
        model: "small" or "large" of the task's pair, or MODULE:NAME of a module that is given, trained.
        codecs: some of :data:`RELEASES`; the plain one is always looked at.
        seeds: each draws its own people and models.
        settings: of all.

    Raises:
        ConfigError: no such model or codec, or no seeds.
    """

    task: str
    model: str = "small"
    codecs: tuple[str, ...] = (PLAIN, "int8+zstd", "int4+zstd")
    seeds: tuple[int, ...] = (0,)
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.model not in ("small", "large") and ":" not in self.model:
            raise ConfigError(f"no model of a pair is called {self.model!r}", 'use "small", "large" or MODULE:NAME')
        if unknown := [name for name in self.codecs if name not in RELEASES]:
            raise ConfigError(f"no codec is called {unknown[0]!r}", f"use some of {', '.join(RELEASES)}")
        if not self.seeds:
            raise ConfigError("no seeds", "give one at least")


@dataclass(frozen=True)
class Found(Saved):
    """What one decoder, or a guess, came to.

    Attributes:
        seed, cut, codec: where; a guess has the cut -1 and its name as codec.
        stage: the last one that the device computes.
        share: of the model's work that it computes, 0..1.
        accuracy: of the answers made from what arrived, a mean of each scored user; empty for a guess.
        up_bytes: of a message of one row, mean; 0 for a guess.
        nearness: measure ("ssim" of images, "psnr" in dB) -> mean of each scored user.
        naive: the same by the decoder that learned from undefended features; empty for a guess.
    """

    seed: int
    cut: int
    codec: str
    stage: str
    share: float
    accuracy: Sequence[float]
    up_bytes: float
    nearness: Mapping[str, Sequence[float]]
    naive: Mapping[str, Sequence[float]]


def attacked(
    what: Attack,
    folder: Path,
    progress: Progress = lambda what, done, of: None,
    cache: Path | None = None,
    module: Module | None = None,
) -> list[Found]:
    """Do what of an attack is not there yet: guesses first, then cuts in order, codec by codec.

    Args:
        what: is attacked.
        folder: of the run.
        progress: is told.
        cache: of the task's models.
        module: a trained module of the task's inputs, instead of the pair's.

    Raises:
        ConfigError: a folder that holds another attack, or a model that cannot be cut.
        DataError: data that is missing or damaged, or no images or vectors.
    """
    config = {"program": "leak", "task": what.task, "model": what.model, "settings": asdict(what.settings)}
    claim = folder / "config.json"
    if claim.exists() and json.loads(claim.read_text()) != config:
        raise ConfigError(f"{folder} holds another attack", "give it another --name, or forget it with --fresh")
    names = (PLAIN, *(name for name in what.codecs if name != PLAIN))
    found = []
    for seed in what.seeds:
        progress(f"seed {seed}: reading the data", 0, 1)
        task = load(what.task, seed)
        if np.asarray(task.public.x).dtype.kind != "f":
            raise DataError(f"the inputs of {what.task} are no numbers to come near to", "attack images or sensors")
        folder.mkdir(parents=True, exist_ok=True)  # what cannot start leaves no folder
        claim.write_text(json.dumps(config))
        found += _seed(what, task, folder / f"seed-{seed}", names, progress, cache, module)
    return found


def _seed(
    what: Attack,
    task: Task,
    place: Path,
    names: Sequence[str],
    progress: Progress,
    cache: Path | None,
    module: Module | None,
) -> list[Found]:
    def tell(words: str, done: float, of: float) -> None:
        progress(f"seed {task.seed}: {words}", done, of)

    if module is None:
        pair = trained(task, cache, lambda which, step, steps: tell(f"training the {which}", step, steps))
        net = getattr(task, what.model)
        module = built(net)
        module.load_state_dict(fitting(net, getattr(pair, what.model)))
    people = People.of(task, what.settings.rows, what.settings.scored)
    staged = stage(module, people.x[:2], proof="stages")
    cuts = inner(staged, what.settings.cuts)
    place.mkdir(exist_ok=True)
    _keep(place / "shown.safetensors", {"shown": people.shown})
    found = _guesses(people, staged, place)
    done, of = 0, len(cuts) * len(names)
    for cut in cuts:
        naive: Inverted | None = None
        for name in names:
            path = place / f"cut-{cut}-{name}.json"
            tell(f"cut {cut}, {name}", done, of)
            if not path.exists():
                if naive is None:
                    naive = _decoder(what.settings, staged, cut, RELEASES[PLAIN], people)
                own = naive if name == PLAIN else _decoder(what.settings, staged, cut, RELEASES[name], people)
                seen = seen_through(staged[:cut], RELEASES[name])(people.shown, (*people.key, "shown"))
                _keep(path.with_suffix(".safetensors"), {"guess": own.guess(seen)})
                at(people, staged, cut, name, own, naive).save(path)
            found.append(Found.load(path))
            done += 1
    tell("done", of, of)
    return found


def inner(staged: Staged, most: int) -> tuple[int, ...]:
    """Cuts that something crosses which is not the input, deepest last; the last stage's is the answer itself."""
    cuts = staged.cuts()[1:]
    return tuple(cuts[i] for i in np.unique(np.linspace(0, len(cuts) - 1, min(most, len(cuts))).round().astype(int)))


def _guesses(people: People, staged: Staged, place: Path) -> list[Found]:
    path = place / "guesses.json"
    if not path.exists():
        path.write_text(json.dumps(guessed(people, staged)))
    try:
        told = json.loads(path.read_text())
        return [Found(people.seed, -1, name, "", 0.0, [], 0.0, told[name], {}) for name in GUESSES]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error})", "remove it, and run again") from error


def pictures(what: Attack, folder: Path) -> dict[str, np.ndarray]:
    """Inputs of calibration people of the first seed and what decoders made of them, 0 to 1; none where no images."""
    place = folder / f"seed-{what.seeds[0]}"
    shown = _kept(place / "shown.safetensors")
    if shown.ndim != 4:
        return {}
    low, span = float(shown.min()), float(np.ptp(shown)) or 1.0
    found = {"the input": shown}
    files = sorted(place.glob("cut-*.safetensors"), key=lambda path: (int(path.stem.split("-")[1]), path.stem))
    for name in (PLAIN, what.codecs[-1]):
        for path in files:
            _, cut, codec = path.stem.split("-", 2)
            if codec == name:
                found[f"cut {cut}, {codec.removesuffix('+zstd')}"] = _kept(path)
    return {name: np.clip((images[:SHOWN] - low) / span, 0, 1) for name, images in found.items()}


def _keep(path: Path, tree: Tree) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(trees.encode(tree))
    part.replace(path)


def _kept(path: Path) -> np.ndarray:
    try:
        ((_, leaf),) = trees.leaves(trees.decode(path.read_bytes()))
        return np.asarray(leaf)
    except (OSError, WireError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})", "remove its folder, and run again") from error


def _decoder(settings: Settings, staged: Staged, cut: int, release: Release, people: People) -> Inverted:
    attack = Inversion(width=settings.width)
    attack = replace(attack, epochs=math.ceil(settings.steps / math.ceil(len(people.public) / attack.batch_size)))
    return attack.fit(seen_through(staged[:cut], release), people.public, (*people.key, cut))


def at(people: People, staged: Staged, cut: int, name: str, adaptive: Inverted, naive: Inverted) -> Found:
    """What both decoders make of what arrives at a cut, and what the cloud makes of it."""
    half = staged[:cut]
    given = seen_through(half, RELEASES[name])(people.x, (*people.key, "arrives"))
    logits = given if cut == len(staged) else _answers(staged, cut, given)
    right = users.by((logits.reshape(len(given), -1).argmax(1) == people.y) * 1.0, people.owner)
    total = staged[:].work().flops or 1.0
    return Found(
        seed=people.seed,
        cut=cut,
        codec=name,
        stage=staged.stages[cut - 1].name,
        share=float(half.work().flops / total),
        accuracy=right.mean.tolist(),
        up_bytes=_bytes(staged, cut, name, people.x[:16]),
        nearness=people.nearness(adaptive.guess(given)),
        naive=people.nearness(naive.guess(given)),
    )


def _answers(staged: Staged, cut: int, given: np.ndarray) -> np.ndarray:
    """The logits that the cloud computes from what arrived."""
    found = staged[cut:](crossing(staged[:cut], given))
    return next(iter(found.values()))


def _bytes(staged: Staged, cut: int, name: str, x: np.ndarray) -> float:
    """Of real messages of one row each, mean."""
    codec, sizes = CODECS[name], []
    for row in x:
        message = {"cut": np.int64(cut), "features": crossing(staged[:cut], features(staged[:cut], row[None]))}
        sizes.append(trees.size(trees.spec(codec.encode(codec.init(), message, ("leak", cut))[1])))
    return float(np.mean(sizes))
