"""Networks for CIFAR-10 images that the measurements of splitting share, each trained once and kept in a folder.

The images are split as published; a thousand training images, drawn by the seed, are kept for calibration. Nothing is
chosen by looking at the test images.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duetto import tree as trees
from duetto.errors import DataError
from duetto.models import Conv, Mobile, Net, Residual
from duetto.tasks import cifar_bin
from duetto.tasks.official import locate
from duetto.training import Adam, Client, Crop, CrossEntropy, sequential
from duetto.tree import Tree
from duetto.types import rng

SHAPE, CLASSES = (3, 32, 32), 10
NETS: dict[str, Net] = {
    "residual": Residual(SHAPE, CLASSES, (24, 48, 96), 1),
    "mobile": Mobile(SHAPE, CLASSES, ((1, 16, 1, 1), (4, 24, 1, 2), (4, 32, 2, 2), (4, 64, 1, 2)), 16, 1, 128),
    "small": Conv(SHAPE, CLASSES, (16, 32, 64)),
}
EPOCHS = 30


@dataclass(frozen=True, eq=False)
class Images:
    """Standardised images ``x [n, 3, 32, 32]``, their bytes ``pixels`` (uint8, same shape), and labels ``y [n]``."""

    x: np.ndarray
    pixels: np.ndarray
    y: np.ndarray


def images(seed: int = 0) -> dict[str, Images]:
    """ "train", "calibration" and "test"."""
    folder = locate("cifar")
    if folder is None:
        raise DataError("no CIFAR-10 here", "set DUETTO_DATA to a folder that holds cifar10_subset")
    data = cifar_bin.read(folder)
    test = np.array([data.users[user] == "test_batch" for user in data.user])
    order = rng((seed, "cifar", "calibration")).permutation(np.flatnonzero(~test))
    rows = {"train": np.sort(order[1000:]), "calibration": np.sort(order[:1000]), "test": np.flatnonzero(test)}
    mean = data.x[rows["train"]].mean((0, 2, 3), keepdims=True)
    scale = data.x[rows["train"]].std((0, 2, 3), keepdims=True)
    pixels = np.rint(data.x * 255).astype(np.uint8)
    return {
        name: Images(((data.x[at] - mean) / scale).astype(np.float32), pixels[at], data.y[at])
        for name, at in rows.items()
    }


def trained(name: str, folder: Path, seed: int = 0) -> tuple[Net, Tree]:
    """A network of :data:`NETS` and its parameters, trained on the "train" images where the folder lacks them."""
    net, path = NETS[name], folder / f"{name}-{seed}.safetensors"
    if not path.exists():
        data = images(seed)["train"]
        client = Client(net, (CrossEntropy(0.1),), Adam(2e-3, schedule="cosine"), EPOCHS, 64, augment=Crop(4))

        def shown(step: int, steps: int) -> None:
            if step % max(1, steps // 20) == 0:
                print(f"{name} seed {seed}: {step} of {steps}", file=sys.stderr, flush=True)

        start = {"params": net.init(seed)}
        found = sequential.run(client, start, {"x": data.x, "y": data.y}, (seed, "split", name), shown).params
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(trees.encode(found))
    return net, trees.decode(path.read_bytes())


def main() -> None:
    """Train all of them and print what they reach."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    test = images(seed)["test"]
    for name in NETS:
        net, params = trained(name, folder, seed)
        right = (net.logits(params, test.x).argmax(1) == test.y).mean()
        print(f"{name}: {net.parameters:,} parameters, {net.work(1).flops / 1e6:.1f} MFLOP, {right:.2%} right")


if __name__ == "__main__":
    main()
