"""What every stage of a network costs and what crosses every cut, read off the staged network once and kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duetto.errors import ConfigError


@dataclass(frozen=True)
class Columns:
    """One network, for one row: floats and bytes of every stage, in topological order, and the cuts between them.

    Attributes:
        flops, moved: ``[stages]``; ``moved`` are the bytes that a stage moves between memory and cores.
        names, operations, reads, nbytes: ``[stages]`` as in :class:`duetto.models.graph.Stage`.
        cuts: the prefixes worth cutting after, from 0 to the number of stages.
        frontier: ``[cuts]`` bytes that cross, float32.
        leaves: ``[cuts]`` tensors that cross.
    """

    name: str
    flops: tuple[float, ...]
    moved: tuple[float, ...]
    names: tuple[str, ...]
    operations: tuple[str, ...]
    reads: tuple[tuple[str, ...], ...]
    nbytes: tuple[int, ...]
    cuts: tuple[int, ...]
    frontier: tuple[int, ...]
    leaves: tuple[int, ...]


def columns(name: str, folder: Path) -> Columns:
    """Those of one of :data:`NETS`, staged where the folder lacks them.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in NETS:
        raise ConfigError(f"no network is called {name!r}", f"use one of {', '.join(NETS)}")
    path = folder / f"{name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(_staged(name))))
    return read(json.loads(path.read_text()))


def read(kept: Mapping[str, Any]) -> Columns:
    """Columns as they were kept."""
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
    return Columns(**{**lists, "reads": tuple(map(tuple, kept["reads"]))})


def _staged(name: str) -> Columns:
    import torch

    from duetto.models import stage

    torch.set_num_threads(1)
    net, low, high = NETS[name]()
    example = torch.randint(low, high, (1, *net.shape)) if high else torch.randn(1, *net.shape)
    staged = stage(net.module(), example, proof="stages")
    cuts = staged.cuts()
    crossing = [staged.frontier(cut) for cut in cuts]
    stages = staged.stages
    return Columns(
        name,
        tuple(each.work.flops for each in stages),
        tuple(each.work.bytes for each in stages),
        tuple(each.name for each in stages),
        tuple(each.operation for each in stages),
        tuple(each.reads for each in stages),
        tuple(each.nbytes for each in stages),
        cuts,
        tuple(sum(leaf.nbytes for leaf in each.values()) for each in crossing),
        tuple(len(each) for each in crossing),
    )


def _alexnet() -> Any:
    from duetto.models.zoo import alexnet

    return alexnet(), 0, 0


def _vgg11() -> Any:
    from duetto.models.zoo import vgg11

    return vgg11(), 0, 0


def _resnet18() -> Any:
    from duetto.models.zoo import resnet18

    return resnet18(), 0, 0


def _mobile() -> Any:
    from duetto.models.zoo import Mobile

    return Mobile((3, 224, 224), 1000), 0, 0


def _vit() -> Any:
    from duetto.models.zoo import vit_s16

    return vit_s16(), 0, 0


def _speech() -> Any:
    from duetto.models.zoo import Speech

    return Speech((80, 1000), 35), 0, 0


def _text() -> Any:
    from duetto.models.zoo import Text

    return Text((128,), 2, 30000, 768, 6, 12), 0, 30000


def _small(width: int, depth: int) -> Callable[[], Any]:
    def made() -> Any:
        from duetto.models.zoo import Text

        return Text((128,), 45, 30000, width, depth, width // 64), 0, 30000

    return made


NETS: Mapping[str, Callable[[], Any]] = {
    "alexnet": _alexnet,
    "vgg11": _vgg11,
    "resnet18": _resnet18,
    "mobilenet-v2": _mobile,
    "vit-s16": _vit,
    "speech": _speech,
    "text": _text,
    "text-small": _small(256, 4),
    "text-tiny": _small(128, 2),
}
"""Name -> the network, and the range of its input's integers; 0 for real numbers."""
