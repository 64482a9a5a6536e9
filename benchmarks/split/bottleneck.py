"""A learned bottleneck beside compressed inputs: bytes at equal accuracy, and where splitting with it pays.

The whole model is the residual network of ``nets.py``. Everything is trained on the training images; qualities and
points of the curve are chosen on the calibration images, and the test images are read once, by the table.
"""

from __future__ import annotations

import argparse
import bisect
import functools
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import constriction
import nets
import numpy as np
import torch
import zstandard
from PIL import Image

from duetto import tree as trees
from duetto.models import Net, Residual
from duetto.models.bottleneck import Bottlenecked, fitting_cuts
from duetto.models.zoo import resnet18
from duetto.simulation import energy, link
from duetto.training import Adam, Client, Crop, CrossEntropy, Distil, sequential
from duetto.training.rate import Imitate, Rated
from duetto.tree import Tree
from duetto.types import Work, rng

VIEWS = 6  # of each training image: itself, and five crops of it, which the teacher has answered once
BEFORE_LAST = (48, 16, 16)  # the frontier that codes replace: what the last group of blocks reads, but for its ReLU
SIZES = {  # channels, downsampling, bits, width; weights of a bit in nats: each point begins where the last one ended
    "32": {
        "8x8x8": ((8, 4, 3, 32), (1e-4, 4e-4, 1.2e-3, 3e-3, 7e-3)),
        "12x4x4": ((12, 8, 4, 32), (4e-4, 3e-3)),
    },
    "64": {"8x8x8": ((8, 8, 3, 16), (1e-4, 4e-4, 1.2e-3, 3e-3))},
}
LARGE_CUT = 32  # of ResNet-18 at 224 pixels, before its third group
POINT = 0.01  # of accuracy that compressing may lose


@dataclass(frozen=True, eq=False)
class Lessons:
    """Views ``x`` of the training images, their labels, and what the whole model makes of them."""

    x: np.ndarray
    y: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Way:
    """One way to bring an image to the cloud, measured.

    Attributes:
        name: what it is.
        calibration, test: share of the images that are answered right.
        apart, low, high: test accuracy less the raw input's, and its 95 % interval by resampling images.
        file_bytes: of one image's message, as a file or message of its own; the mean over the test images.
        bare_bytes: the same without what never changes: containers, tables, headers.
        ideal_bytes: what the prior says that they cost; codes only.
    """

    name: str
    calibration: float
    test: float
    apart: float
    low: float
    high: float
    file_bytes: float
    bare_bytes: float
    ideal_bytes: float | None = None


def crops(data: nets.Images, seed: int) -> nets.Images:
    """64-pixel crops: each image enlarged to 80 pixels (bilinear), cut at a random place; the label is the image's."""
    places = rng((seed, "crops")).integers(0, 17, (len(data.y), 2))
    cut = []
    for image, (top, left) in zip(data.pixels, places, strict=True):
        large = Image.fromarray(image.transpose(1, 2, 0)).resize((80, 80), Image.Resampling.BILINEAR)
        cut.append(np.asarray(large)[top : top + 64, left : left + 64].transpose(2, 0, 1))
    found = np.stack(cut)
    return nets.Images(standardised(found, data), found, data.y)


def trained_on_crops(data: nets.Images, folder: Path, seed: int) -> tuple[Net, Tree]:
    """A residual network for the crops, of four groups."""
    net, path = Residual((3, 64, 64), nets.CLASSES, (12, 24, 48, 96), 1, groups=4), folder / f"crops-{seed}.safetensors"
    if not path.exists():
        client = Client(net, (CrossEntropy(0.1),), Adam(2e-3, schedule="cosine"), 20, 64, augment=Crop(8))
        start, rows = {"params": net.init(seed)}, {"x": data.x, "y": data.y}
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(trees.encode(sequential.run(client, start, rows, (seed, "crops"), shown("crops")).params))
    return net, trees.decode(path.read_bytes())


def lessons(net: Net, params: Tree, data: nets.Images, seed: int) -> Lessons:
    """All views: of every image the first, then of every image the second, and so on."""
    crop, generator = Crop(data.x.shape[-1] // 8), torch.Generator().manual_seed(seed)
    plain = torch.from_numpy(data.x)
    x = np.concatenate([data.x] + [crop(plain, generator).numpy() for _ in range(VIEWS - 1)])
    return Lessons(x, np.tile(data.y, VIEWS), net.logits(params, x))


def learned(
    net: Bottlenecked,
    weights: tuple[float, ...],
    params: Tree,
    taught: Callable[[], Lessons],
    seed: int,
    folder: Path,
    name: str,
) -> dict[float, Tree]:
    """Bit weight -> parameters: head distillation of two views, then end to end for each weight after the other."""
    wanted = {weight: folder / f"bottleneck-{net.shape[-1]}-{name}-{weight:g}-{seed}.safetensors" for weight in weights}
    if not all(path.exists() for path in wanted.values()):
        now, views = dict(net.around(params, seed)), taught()
        x = views.x[: 2 * len(views.x) // VIEWS]
        head = Client(net.restoring, (Rated((Imitate(),), 1e-5),), Adam(2e-3, schedule="cosine"), 2, 64)
        start = {"params": {side: now[side] for side in ("encoder", "decoder", "prior")}}
        features = {"x": x, "teacher": net.restoring.targets(params, x)}
        now |= sequential.run(head, start, features, (seed, "head", name), shown(name)).params
        del features
        whole = {"x": views.x, "y": views.y, "teacher": views.logits}
        for weight, path in wanted.items():
            loss = (Rated((CrossEntropy(0.3), Distil(0.7, 2.0)), weight),)
            first = weight == weights[0]
            client = Client(net, loss, Adam(1.5e-3 if first else 7e-4, schedule="cosine"), 3 if first else 1, 64)
            key = (seed, "whole", name, str(weight))
            now = dict(sequential.run(client, {"params": now}, whole, key, shown(f"{name} {weight}")).params)
            path.write_bytes(trees.encode(now))
    return {weight: trees.decode(path.read_bytes()) for weight, path in wanted.items()}


def used_to_jpeg(
    net: Net, params: Tree, taught: Callable[[], Lessons], data: nets.Images, seed: int, folder: Path
) -> Tree:
    """The whole model taught further, on JPEGs of the training images at random qualities: the stronger baseline."""
    path = folder / f"jpeg-{net.shape[-1]}-{seed}.safetensors"
    if not path.exists():
        quality = rng((seed, "quality")).integers(5, 80, (2, len(data.y)))
        seen = [pixels(packed(data.pixels, each, "JPEG")) for each in quality]
        x = standardised(np.concatenate([data.pixels, *seen]), data)
        n = len(data.y)
        whole = {"x": x, "y": np.tile(data.y, 3), "teacher": np.tile(taught().logits[:n], (3, 1))}
        loss = (CrossEntropy(0.3), Distil(0.7, 2.0))
        client = Client(net, loss, Adam(1e-3, schedule="cosine"), 2, 64, augment=Crop(net.shape[-1] // 8))
        found = sequential.run(client, {"params": params}, whole, (seed, "jpeg"), shown("jpeg")).params
        path.write_bytes(trees.encode(found))
    return trees.decode(path.read_bytes())


def shown(name: str) -> Callable[[int, int], None]:
    """What tells how far a training is."""

    def tell(step: int, steps: int) -> None:
        if step % max(1, steps // 4) == 0:
            print(f"{name}: {step} of {steps}", file=sys.stderr, flush=True)

    return tell


def packed(images: np.ndarray, quality: int | np.ndarray, kind: str, **options: object) -> list[bytes]:
    """Each image as a file."""
    files = []
    for image, q in zip(images, np.broadcast_to(quality, len(images)), strict=True):
        with io.BytesIO() as file:
            Image.fromarray(image.transpose(1, 2, 0)).save(file, kind, quality=int(q), **options)
            files.append(file.getvalue())
    return files


def pixels(files: list[bytes]) -> np.ndarray:
    """``[n, 3, height, width]`` uint8."""
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).transpose(2, 0, 1) for file in files])


def standardised(images: np.ndarray, like: nets.Images) -> np.ndarray:
    """Pixels as the network wants them: by the line that fits ``like``'s inputs to its pixels, for each channel."""
    x = np.empty(images.shape, np.float32)
    for channel in range(3):
        known, wanted = like.pixels[:, channel].reshape(-1), like.x[:, channel].reshape(-1)
        low, high = int(known.argmin()), int(known.argmax())
        slope = (float(wanted[high]) - float(wanted[low])) / (float(known[high]) - float(known[low]))
        x[:, channel] = (images[:, channel].astype(np.float64) - float(known[low])) * slope + float(wanted[low])
    return x


def bare(file: bytes, kind: str) -> int:
    """Bytes that change from image to image: JPEG's scan under the standard tables, WebP's frame behind its header."""
    if kind == "WEBP":
        return len(file) - 30  # RIFF and chunk: 20; start code and sizes of the frame: 10
    scan = file.rindex(b"\xff\xda")
    return len(file) - scan - 2 - int.from_bytes(file[scan + 2 : scan + 4], "big") - 2


def entropy_coded(codes: np.ndarray, prior: np.ndarray) -> int:
    """Bytes of one image's codes ``[channels, ...]`` by the prior; they are decoded and compared."""
    models = [constriction.stream.model.Categorical(row, perfect=False) for row in prior]
    coder = constriction.stream.queue.RangeEncoder()
    symbols = codes.reshape(len(prior), -1).astype(np.int32)
    for row, model in zip(symbols, models, strict=True):
        coder.encode(row, model)
    words = coder.get_compressed()
    decoder = constriction.stream.queue.RangeDecoder(words)
    assert all(
        (decoder.decode(model, symbols.shape[1]) == row).all() for row, model in zip(symbols, models, strict=True)
    )
    return int(words.nbytes)


def wrapped(payload: float) -> float:
    """Bytes of a message that holds so many: the tree's header comes to it."""
    return payload + trees.size(trees.spec({"x": np.zeros(0, np.uint8)}))


def measured(name: str, right: Mapping[str, np.ndarray], raw: np.ndarray, sizes: tuple[float, ...]) -> Way:
    """A row of the table."""
    apart = right["test"] * 1.0 - raw
    draws = rng((0, "bootstrap")).integers(0, len(apart), (4000, len(apart)))
    low, high = np.quantile(apart[draws].mean(1), [0.025, 0.975])
    accuracy = float(right["calibration"].mean()), float(right["test"].mean())
    return Way(name, *accuracy, float(apart.mean()), float(low), float(high), *sizes)


QUALITIES = (1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95)


def inputs(
    net: Net, params: Tree, data: Mapping[str, nets.Images], label: str, raw: Mapping[str, np.ndarray]
) -> list[Way]:
    """JPEG, with and without halved colours, and WebP: each at the lowest quality that loses no more than a point.

    "Loses" is said of the calibration images, and quality is bisected, as if accuracy always rose with it; the test
    images are then seen at that quality alone.
    """
    ways = []
    for kind, said, options in (
        ("JPEG", "4:2:0", {"subsampling": 2}),
        ("JPEG", "4:4:4", {"subsampling": 0}),
        ("WEBP", "", {"method": 6}),
    ):

        def seen(part: str, quality: int, kind=kind, options=options) -> tuple[np.ndarray, list[bytes]]:
            """Which answers are right, and the files."""
            files = packed(data[part].pixels, quality, kind, **options)
            logits = net.logits(params, standardised(pixels(files), data["train"]))
            return logits.argmax(1) == data[part].y, files

        def enough(quality: int, seen=seen) -> bool:
            return bool(seen("calibration", quality)[0].mean() >= raw["calibration"].mean() - POINT)

        at = bisect.bisect_left(QUALITIES, True, key=enough)
        if at == len(QUALITIES):
            continue
        (calibration, _), (test, files) = seen("calibration", QUALITIES[at]), seen("test", QUALITIES[at])
        own = files if kind == "WEBP" else packed(data["test"].pixels, QUALITIES[at], kind, optimize=True, **options)
        sizes = float(np.mean([*map(len, own)])), float(np.mean([bare(file, kind) for file in files]))
        name = " ".join(filter(None, (kind, said, f"quality {QUALITIES[at]}{label}")))
        right = {"calibration": calibration, "test": test}
        ways.append(measured(name, right, raw["test"] * 1.0, sizes))
        print(ways[-1], file=sys.stderr, flush=True)
    return ways


def codes(
    net: Bottlenecked, trained: Mapping[float, Tree], data: Mapping[str, nets.Images], raw: np.ndarray
) -> list[Way]:
    """Every point of a bottleneck's curve."""
    ways = []
    for weight, params in trained.items():
        prior, right = net.prior(params), {}
        for part in ("calibration", "test"):
            made = net.encode(params, data[part].x)
            right[part] = net.decode(params, made).argmax(1) == data[part].y
        cost = -np.log2(np.take_along_axis(prior[None], made.reshape(len(made), len(prior), -1).astype(int), 2))
        own = float(np.mean([entropy_coded(each, prior) for each in made]))
        zipped = np.mean([len(zstandard.compress(each.tobytes(), 19)) for each in made[:200]])
        name = f"bottleneck {'x'.join(map(str, net.code))}, {net.bits} bits, weight {weight:g} (zstd {zipped:.0f})"
        ways.append(measured(name, right, raw, (wrapped(own), own, float(cost.sum((1, 2)).mean() / 8))))
    return ways


def smallest(ways: Iterable[Way], raw: float) -> Way | None:
    """The fewest bare bytes among those that lose at most a point of the raw input's accuracy on calibration images."""
    return min((way for way in ways if way.calibration >= raw - POINT), key=lambda way: way.bare_bytes, default=None)


@dataclass(frozen=True)
class Load:
    """What one answer costs, three ways: work of the whole and of the two sides, bytes of input and of codes."""

    whole: Work
    device: Work
    cloud: Work
    input_bytes: int
    code_bytes: int


ANSWER_BYTES = 120  # ten logits and the message's header


def cells(load: Load, starts: int, margin: float = 1.1) -> list[dict[str, object]]:
    """For each device, trace and goal: the split beside the better extreme, in the mean of requests along the trace.

    Requests begin at ``starts`` times, evenly over the trace. What a device does to compress the input costs nothing
    here, which favours the cloud alone. Joules are above idle. A tail is what the radio spends after the last bit: with
    it, each request stands alone; without, the radio is awake for other reasons.
    """
    rows, remote = [], energy.profiles()["cloud-gpu"]
    for network in ("3g-commute", "4g-commute", "5g", "broadband"):
        found = link.named(network)
        radio = energy.radios()[found.radio]
        for index, line in enumerate(found.links):
            times = np.linspace(0, line.down.seconds[-1], starts, endpoint=False)

            def sent(nbytes: int, wait: float, line=line, times=times, radio=radio) -> tuple[np.ndarray, np.ndarray]:
                """Seconds from leaving the device to the answer, and joules of the radio."""
                seconds, joules = [], []
                for time in times:
                    there = line.sent(time, nbytes, "up")
                    back = line.sent(there + wait, ANSWER_BYTES, "down")
                    seconds.append(back - time)
                    flows = (
                        max(0.0, there - time - line.rtt_seconds / 2),
                        max(0.0, back - there - wait - line.rtt_seconds / 2),
                    )
                    joules.append(energy.transfer_joules(radio, *flows, 0.0))
                return np.array(seconds), np.array(joules)

            whole_wait, rest_wait = energy.compute(remote, load.whole)[0], energy.compute(remote, load.cloud)[0]
            by_input, by_codes = sent(load.input_bytes, whole_wait), sent(load.code_bytes, rest_wait)
            tail = radio.tail_watts * radio.tail_seconds
            for device in ("low-end-phone", "mid-phone", "flagship-phone", "raspberry-pi-4", "jetson-class"):
                profile = energy.profiles()[device]
                alone, alone_joules = energy.compute(profile, load.whole)
                half, half_joules = energy.compute(profile, load.device)
                ways = {
                    "latency": (alone, by_input[0].mean(), half + by_codes[0].mean()),
                    "energy": (alone_joules, by_input[1].mean(), half_joules + by_codes[1].mean()),
                    "energy with tail": (
                        alone_joules,
                        by_input[1].mean() + tail,
                        half_joules + by_codes[1].mean() + tail,
                    ),
                }
                for goal, (device_only, cloud_only, split) in ways.items():
                    gain = min(device_only, cloud_only) / split
                    rows.append(
                        {
                            "network": network,
                            "trace": index,
                            "device": device,
                            "goal": goal,
                            "device_only": float(device_only),
                            "cloud_only": float(cloud_only),
                            "split": float(split),
                            "gain": float(gain),
                            "wins": bool(gain >= margin),
                        }
                    )
    return rows


def grown(net: Bottlenecked, pixels_more: float, input_bytes: float, code_bytes: float) -> Load:
    """The load of a larger network, untrained: its bytes for each pixel are taken to be those measured, bare."""
    sizes = (round(wrapped(pixels_more * nbytes)) for nbytes in (input_bytes, code_bytes))
    return Load(net.backbone.work(1), net.device.work(1), net.cloud.work(1), *sizes)


def shares(rows: list[dict[str, object]], title: str) -> None:
    """The share of cell-traces that the split wins, by goal and network."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    print(f"\n| {title} | cell-traces | wins % | {' | '.join(map(str, networks))} | largest gain |")
    print("|:--|--:|--:|" + "--:|" * (len(networks) + 1))
    for goal in dict.fromkeys(row["goal"] for row in rows):
        own = [row for row in rows if row["goal"] == goal]
        per = [100 * np.mean([row["wins"] for row in own if row["network"] == network]) for network in networks]
        best = max(float(row["gain"]) for row in own)  # type: ignore[arg-type]
        share = 100 * np.mean([row["wins"] for row in own])
        print(f"| {goal} | {len(own)} | {share:.1f} | {' | '.join(f'{each:.1f}' for each in per)} | {best:.2f} |")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where trained networks are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pixels", choices=list(SIZES), default="32")
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = nets.images(asked.seed)
    if asked.pixels == "64":
        data = {name: crops(part, asked.seed) for name, part in data.items()}
        net, params = trained_on_crops(data["train"], asked.folder, asked.seed)
    else:
        net, params = nets.trained("residual", asked.folder, asked.seed)
    side = net.shape[-1]
    taught = functools.cache(lambda: lessons(net, params, data["train"], asked.seed))
    right = {part: net.logits(params, data[part].x).argmax(1) == data[part].y for part in ("calibration", "test")}
    raw = measured("raw input", right, right["test"] * 1.0, (3.0 * side**2, 3.0 * side**2))
    plain = inputs(net, params, data, "", right)
    used = used_to_jpeg(net, params, taught, data["train"], asked.seed, asked.folder)
    retrained = inputs(net, used, data, ", model taught on JPEG", right)
    necks, cut = {}, min(cut for cut, shape in fitting_cuts(net).items() if shape == BEFORE_LAST)
    for name, ((channels, downsampling, bits, width), weights) in SIZES[asked.pixels].items():
        neck = Bottlenecked(net, cut, channels, downsampling, bits, width)
        trained = learned(neck, weights, params, taught, asked.seed, asked.folder, name)
        necks[name] = neck, codes(neck, trained, data, right["test"] * 1.0)
        part = neck.device.work(1).flops / net.work(1).flops
        print(f"{name}: encoder {neck.device.parameters:,} parameters, {part:.0%} of the whole model's operations")
    print("\n| way | calibration % | test % | less raw, points (95 %) | file B | bare B | ideal B |")
    print("|:--|--:|--:|--:|--:|--:|--:|")
    points = {name: smallest(ways, raw.calibration) for name, (_, ways) in necks.items()}
    rivals = [*plain, *retrained]
    for way in (raw, *rivals, *(way for _, ways in necks.values() for way in ways)):
        ideal = "" if way.ideal_bytes is None else f"{way.ideal_bytes:.1f}"
        print(
            f"| {way.name} | {100 * way.calibration:.1f} | {100 * way.test:.1f} | {100 * way.apart:+.2f} "
            f"({100 * way.low:+.2f} to {100 * way.high:+.2f}) | {way.file_bytes:.0f} | {way.bare_bytes:.0f} | {ideal} |"
        )
    chosen = min((name for name in necks if points[name]), key=lambda name: points[name].bare_bytes, default=None)
    told: dict[str, object] = {"seed": asked.seed, "ways": [asdict(way) for way in (raw, *rivals)]}
    told["necks"] = {name: [asdict(way) for way in ways] for name, (_, ways) in necks.items()}
    if chosen is not None:
        neck, way = necks[chosen][0], points[chosen]
        told["chosen"] = way.name
        print(f"\nchosen: {way.name}; times its bytes, bare, and as whole messages:")
        for other in rivals:
            bare_times, whole_times = other.bare_bytes / way.bare_bytes, wrapped(other.file_bytes) / way.file_bytes
            print(f"- {other.name}: {bare_times:.2f}, {whole_times:.2f}")
        other = min(rivals, key=lambda each: each.bare_bytes)
        work = net.work(1), neck.device.work(1), neck.cloud.work(1)
        large = Bottlenecked(resnet18(), LARGE_CUT, neck.channels, 8, neck.bits)
        told["cells"] = {}
        for each in (each for each in necks[chosen][1] if each.calibration >= raw.calibration - POINT):
            small = Load(*work, round(wrapped(other.bare_bytes)), round(wrapped(each.bare_bytes)))
            bigger = grown(large, (224 / side) ** 2, other.bare_bytes, each.bare_bytes)
            print(f"\n{each.name}, against the cloud alone by {other.name}")
            for title, load in ((f"{side} px, as measured", small), ("224 px, ResNet-18, extrapolated", bigger)):
                rows = cells(load, asked.starts)
                told["cells"][f"{each.name}, {title}"] = {"load": asdict(load), "rows": rows}  # type: ignore[index]
                shares(rows, f"{title}, {load.input_bytes} and {load.code_bytes} B")
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
