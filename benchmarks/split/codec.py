"""What codecs make of the features that cross a cut: bytes on the wire, speed, and what the answer loses.

``python benchmarks/split/codec.py FOLDER [NET ...]`` takes the networks of :mod:`nets` (trained into FOLDER where they
are not there) and prints a Markdown table for each cut; FOLDER/codec-NET.json keeps all figures.

- **Cuts**: in each quarter of the network's compute the one whose int8 + zstd message is smallest on calibration
  images; that of the first half is what a planner would take. Only the cuts' own sizes decide, no label.
- **Bytes**: of the whole message (``duetto.tree.encode`` of what the codec gives, headers and all), the mean over the
  2,000 test images one by one, and by row where 32 go together.
- **Speed**: raw float32 bytes a second of one core, from features to message and back, median of repeats, in the
  thread's own processor time (other work on the machine does not count, what it does to the caches does).
- **Accuracy**: of the cloud's half on what it decodes, over the test images one by one; its loss against the uncut
  model in points, with a 95 % interval of the paired difference. Ranges, priors and the share of values that a range
  keeps come from the thousand calibration images.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import nets
import numpy as np
import torch

from duetto import tree as trees
from duetto.codecs import (
    Lz4,
    Progressive,
    Quantise,
    Ranged,
    Rans,
    TopK,
    Zstd,
    bound,
    counts,
    priors,
    ranges,
)
from duetto.models import Staged, stage
from duetto.models.net import built, to_tensors
from duetto.tree import Tree
from duetto.types import Chain, Codec, Domain, Key

SHARES = (1.0, 0.9999, 0.999, 0.99, 0.98)  # of the values that a range keeps, tried on the calibration images
ALLOWED = {8: 0.001, 4: 0.003, 2: 0.01}  # accuracy that bits may cost there
BATCH, REPEATS = 32, 31


@dataclass(frozen=True)
class Half(Codec[Tree]):
    """float32 as float16: a baseline."""

    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.FLOATS

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Narrow."""
        return state, trees.map(lambda leaf: leaf.astype(np.float16), tree)

    def decode(self, tree: Tree) -> Tree:
        """Widen."""
        return trees.map(lambda leaf: leaf.astype(np.float32), tree)

    def becomes(self, spec: Any) -> None:
        """Not asked here."""
        return None


@dataclass(frozen=True, eq=False)
class Cut:
    """A cut, and what crosses it for the calibration and the test images."""

    net: Staged
    at: int
    share: float
    calibration: Tree
    test: Tree

    @classmethod
    def of(cls, net: Staged, at: int, images: dict[str, nets.Images]) -> Cut:
        """Compute the device's side."""
        flops = [each.work.flops for each in net.stages]
        crossing = {name: features(net, at, images[name].x) for name in ("calibration", "test")}
        return cls(net, at, sum(flops[:at]) / sum(flops), **crossing)

    @property
    def name(self) -> str:
        """After which stage."""
        return self.net.stages[self.at - 1].name

    @property
    def raw(self) -> int:
        """Bytes of one row in float32."""
        return sum(leaf.nbytes for leaf in self.net.frontier(self.at).values())

    def answers(self, tree: Tree) -> np.ndarray:
        """The class that the cloud's side says, for each row."""
        back, found = self.net[self.at :], []
        for i in range(0, size(tree), 100):
            (logits,) = back(taken(tree, slice(i, i + 100))).values()
            found.append(logits.argmax(1))
        return np.concatenate(found)


def features(net: Staged, at: int, x: np.ndarray) -> Tree:
    """What crosses a cut."""
    (name,) = net.frontier(0)
    found = [net[:at]({name: x[i : i + 100]}) for i in range(0, len(x), 100)]
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}


def size(tree: Tree) -> int:
    """Rows."""
    return len(next(iter(tree.values())))


def taken(tree: Tree, rows: slice) -> Tree:
    """Some rows, as arrays of their own."""
    return {name: np.ascontiguousarray(leaf[rows]) for name, leaf in tree.items()}


def sent(codec: Codec[Any], tree: Tree) -> bytes:
    """The message."""
    return trees.encode(codec.encode(codec.init(), tree, (0,))[1])


def received(codec: Codec[Any], message: bytes) -> Tree:
    """What the other side has."""
    return codec.decode(trees.decode(message))


def cuts(net: Staged, images: dict[str, nets.Images]) -> list[int]:
    """The cut of the smallest int8 + zstd message in each quarter of the compute; most quarters have one."""
    flops = np.array([each.work.flops for each in net.stages])
    done, few = np.cumsum(flops) / flops.sum(), images["calibration"].x[:50]
    best: dict[int, tuple[float, int]] = {}
    for at in range(1, len(net)):
        if not 0 < done[at - 1] < 0.995:
            continue
        crossing = features(net, at, few)
        codec = Chain((Ranged(8, ranges([crossing])), Zstd(1)))
        length = np.mean([len(sent(codec, taken(crossing, slice(i, i + 1)))) for i in range(len(few))])
        quarter = int(done[at - 1] * 4)
        best[quarter] = min(best.get(quarter, (np.inf, 0)), (float(length), at))
    return sorted(at for _, at in best.values())


def ranged(cut: Cut, bits: Any, truth: np.ndarray) -> tuple[Ranged, float]:
    """The quantiser whose ranges keep most and cost no more than allowed on the calibration images; what it keeps."""
    whole = (cut.answers(cut.calibration) == truth).mean()
    tried = []
    for share in SHARES:
        codec = Ranged(bits, ranges([cut.calibration], share))
        right = (cut.answers(received(codec, sent(codec, cut.calibration))) == truth).mean()
        tried.append((right, share, codec))
        if right >= whole - ALLOWED[bits] - 1e-9:
            return codec, share
    _, share, codec = max(tried, key=lambda each: each[:2])
    return codec, share


def codecs(cut: Cut, truth: np.ndarray) -> dict[str, Codec[Any]]:
    """What is measured."""
    found: dict[str, Codec[Any]] = {
        "float32": Chain(),
        "float32 + zstd1": Zstd(1),
        "float16": Half(),
        "float16 + zstd1": Chain((Half(), Zstd(1))),
        "own range: int8 + zstd1": Chain((Quantise(8), Zstd(1))),
        "own range: int4 + zstd1": Chain((Quantise(4), Zstd(1))),
        "top 20 % + int8 + zstd1": Chain((TopK(0.2), Quantise(8), Zstd(1))),
    }
    for bits, levels in ((8, (1, 9)), (4, (1, 9)), (2, (3,))):
        quantised, share = ranged(cut, bits, truth)
        name = f"int{bits}" if share == 1 else f"int{bits} ({share:.2%} in range)"
        single = Ranged(quantised.bits, quantised.ranges, packed=False)
        counted = priors([single.encode({}, cut.calibration, ())[1]], 1 << bits)
        found[name] = quantised
        found[f"{name} + lz4"] = Chain((quantised, Lz4()))
        found |= {f"{name} + zstd{level}": Chain((quantised, Zstd(level))) for level in levels}
        found[f"{name} + rANS"] = Chain((single, Rans(counted)))
    return found


def timed(action: Callable[[], Any], nbytes: int) -> float:
    """MB/s of the thread's own time, median of repeats."""
    action()
    taken_ns = []
    for _ in range(REPEATS):
        start = time.thread_time_ns()
        action()
        taken_ns.append(time.thread_time_ns() - start)
    return nbytes / float(np.median(taken_ns)) * 1e3


def accuracy(right: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Accuracy, and its loss against the uncut model's in points with half of its 95 % interval."""
    apart = (whole.astype(float) - right) * 100
    return {
        "accuracy": float(right.mean()),
        "loss": float(apart.mean()),
        "interval": float(1.96 * apart.std(ddof=1) / np.sqrt(len(apart))),
    }


def measured(cut: Cut, codec: Codec[Any], y: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """One row of the table."""
    rows = [taken(cut.test, slice(i, i + 1)) for i in range(len(y))]
    messages = [sent(codec, row) for row in rows]
    back = [received(codec, message) for message in messages]
    together = {name: np.concatenate([row[name] for row in back]) for name in back[0]}
    many = [taken(cut.test, slice(i, i + BATCH)) for i in range(0, len(y) - BATCH + 1, BATCH)]
    batched = [len(sent(codec, batch)) / BATCH for batch in many]
    found = {"bytes": float(np.mean([len(message) for message in messages])), "batched": float(np.mean(batched))}
    for name, tree in (("one", rows[7]), ("many", many[0])):
        message, raw = sent(codec, tree), cut.raw * size(tree)
        found[f"encode_{name}"] = timed(partial(sent, codec, tree), raw)
        found[f"decode_{name}"] = timed(partial(received, codec, message), raw)
    return found | accuracy(cut.answers(together) == y, whole)


def refined(cut: Cut, images: dict[str, nets.Images], whole: np.ndarray) -> list[dict[str, Any]]:
    """int8 in two parts of 4 bits, each through zstd; the second is sent where the first leaves the cloud unsure.

    How sure it must be is the least that costs at most 0.1 points on the calibration images.
    """
    quantised = Ranged(8, ranges([cut.calibration]))
    codec = Progressive(quantised, (4, 4), counts(quantised, [cut.calibration]))
    back = cut.net[cut.at :]

    def run(tree: Tree) -> tuple[np.ndarray, ...]:
        lengths, coarse, fine = [], [], []
        for i in range(size(tree)):
            coded = codec.encode({}, taken(tree, slice(i, i + 1)), ())[1]
            first, second = codec.parts(coded)
            lengths.append([len(sent(Zstd(1), part)) for part in (first, second)])
            coarse.append(codec.decode(first))
            fine.append(codec.decode(coded))
        logits = []
        for found in (coarse, fine):
            joint = {name: np.concatenate([row[name] for row in found]) for name in found[0]}
            (out,) = back(joint).values()
            logits.append(out)
        sure = np.exp(logits[0] - logits[0].max(1, keepdims=True))
        return np.array(lengths), *(each.argmax(1) for each in logits), sure.max(1) / sure.sum(1)

    y = images["calibration"].y
    _, coarse, fine, sure = run(cut.calibration)
    allowed = (fine == y).mean() - 0.001 - 1e-9
    least = next(t for t in np.linspace(0, 1.01, 102) if (np.where(sure < t, fine, coarse) == y).mean() >= allowed)
    lengths, coarse, fine, sure = run(cut.test)
    asked, y = sure < least, images["test"].y
    rows = []
    for name, answer, length in (
        ("int8 in parts: first", coarse, lengths[:, 0]),
        ("int8 in parts: both", fine, lengths.sum(1)),
        (
            f"int8 in parts: both for {asked.mean():.0%}",
            np.where(asked, fine, coarse),
            lengths @ [1, 0] + lengths[:, 1] * asked,
        ),
    ):
        rows.append({"codec": name, "bytes": float(length.mean())} | accuracy(answer == y, whole))
    return rows


def shown(rows: list[dict[str, Any]], raw: int) -> None:
    """A Markdown table."""
    print("| codec | bytes, alone | of 32 | encode MB/s, alone / of 32 | decode | right | loss in points |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        speeds = [
            f"{row[f'{way}_one']:,.0f} / {row[f'{way}_many']:,.0f}" if f"{way}_one" in row else "–"
            for way in ("encode", "decode")
        ]
        many = f"{row['batched']:,.0f} ({raw / row['batched']:.1f}x)" if "batched" in row else "–"
        print(
            f"| {row['codec']} | {row['bytes']:,.0f} ({raw / row['bytes']:.1f}x) | {many} | {' | '.join(speeds)} | "
            f"{row['accuracy']:.2%} | {row['loss']:+.2f} ± {row['interval']:.2f} |",
            flush=True,
        )


def verdicts(rows: list[dict[str, Any]], raw: int) -> list[str]:
    """The targets, for messages of one row."""
    said = []
    for bits, ratio, loss in ((8, 7.0, 0.1), (4, 20.0, 0.3)):
        row = next(row for row in rows if row["codec"].startswith(f"int{bits}") and row["codec"].endswith("zstd1"))
        for what, met in (
            (f"{raw / row['bytes']:.1f}x of {ratio:.0f}x", raw / row["bytes"] >= ratio),
            (f"{row['loss']:+.2f} points of {loss}", row["loss"] <= loss + 1e-9),
            (f"{row['encode_one']:,.0f} of 500 MB/s", row["encode_one"] >= 500),
        ):
            said.append(f"{row['codec']}, alone: {what}: {'met' if met else 'MISSED'}")
    return said


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    folder, names = Path(sys.argv[1]), sys.argv[2:] or ["residual", "mobile"]
    images = nets.images()
    y = images["test"].y
    for name in names:
        description, params = nets.trained(name, folder)
        module = built(description, 0)
        module.load_state_dict(to_tensors(params))
        net = stage(module, torch.from_numpy(images["calibration"].x[:2]), proof="stages")
        whole = Cut.of(net, len(net), images).test["logits"].argmax(1) == y
        print(f"\n## {name}: {whole.mean():.2%} right, uncut")
        log = []
        chosen = [Cut.of(net, at, images) for at in cuts(net, images)]
        for cut in chosen:
            rows = []
            for label, codec in codecs(cut, images["calibration"].y).items():
                rows.append({"codec": label} | measured(cut, codec, y, whole))
                print(f"{name} {cut.name}: {label}", file=sys.stderr, flush=True)
            rows += refined(cut, images, whole)
            told = bound(Chain((Ranged(8, ranges([cut.calibration])), Zstd(1))), [cut.calibration])
            crossing = ", ".join(str(tuple(leaf.shape[1:])) for leaf in net.frontier(cut.at).values())
            print(f"\n### {name}, after `{cut.name}` ({cut.share:.0%} of the compute): {crossing}, {cut.raw:,} bytes\n")
            shown(rows, cut.raw)
            print("\nint8, promised and seen: " + ", ".join(f"{e.promised:.4f}, {e.seen:.4f}" for e in told.values()))
            print("\n".join(f"- {line}" for line in verdicts(rows, cut.raw)), flush=True)
            log.append({"cut": cut.name, "share": cut.share, "raw": cut.raw, "rows": rows})
        (folder / f"codec-{name}.json").write_text(json.dumps(log, indent=1))


if __name__ == "__main__":
    main()
