"""Split learning and SplitFed: a model is cut, devices learn its first stages and the cloud the rest.

Gupta, Raskar: Distributed learning of deep neural network over multiple agents, JNCA 2018; Vepakomma, Gupta, Swedish,
Raskar: Split learning for health, 2018; Thapa, Chamikara, Camtepe, Sun: SplitFed: When Federated Learning Meets Split
Learning, AAAI 2022; Gawali et al. 2021 (version 3); Jeon, Kim 2020 (parallel).

Up: features of each batch, and labels, which stay where a tail is on the device; halves that are averaged or passed on.
Down: the slopes of the features. Stays: the rows. Features tell much about them (:mod:`duetto.attacks`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from duetto.aggregation import Mean
from duetto.errors import ConfigError
from duetto.models.staged import Cut, Half, Staged
from duetto.protocols.split import Split
from duetto.training.halves import Backs, Forths
from duetto.training.optimisers import Optimiser
from duetto.training.split import Back, Enter, Forth, Front, Leave, Tail, learnable
from duetto.types import Chain, Codec, Policy

KINDS: dict[str, tuple[Any, Any]] = {
    "vanilla": ("passed", "one"),
    "parallel": ("own", "together"),
    "splitfed1": ("averaged", "each"),
    "splitfed2": ("averaged", "one"),
    "splitfed3": ("own", "each"),
}
"""Kind -> what becomes of the devices' halves, and of the cloud's."""


def halves(net: Staged, cut: Cut, last: Cut | None = None) -> dict[str, Half]:
    """What parties remember: ``front`` and, behind ``last``, ``tail`` of a device, ``back`` of the cloud.

    Raises:
        ConfigError: a side without parameters of its own, or parameters on two sides of a cut.
    """
    found = {"front": net[:cut], "back": net[cut:] if last is None else net[cut:last]}
    if last is not None:
        found["tail"] = net[last:]
    owner: dict[str, str] = {}
    for slot, half in found.items():
        for name in half.learnable:
            if owner.setdefault(name, slot) != slot:
                raise ConfigError(f"{name} is on two sides of the cut", "cut where no parameters are shared")
    if "back" not in owner.values():
        raise ConfigError("a cut that leaves the cloud nothing to learn", "cut earlier, or learn on the device alone")
    return found


def split(
    sides: dict[str, Half],
    kind: str,
    optimiser: Optimiser,
    *,
    epochs: int,
    cohort: Policy[Any],
    batch_size: int = 16,
    up: Codec[Any] = Chain(),
    down: Codec[Any] = Chain(),
    batched: bool = True,
) -> Split:
    """Both sides of split learning; run it with :func:`duetto.protocols.split.split`.

    Args:
        sides: as :func:`halves` gives them; each party's memory has its own.
        kind: "vanilla", "parallel", "splitfed1", "splitfed2" or "splitfed3".
        optimiser: of both sides; its state does not outlive a pass.
        epochs, batch_size: of a pass over a device's rows.
        cohort: who takes part in a round.
        up, down: codecs of features and of slopes.
        batched: whether the cloud's halves of devices that are due together run as one batch, equal to rounding.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"no kind of split learning is called {kind!r}", f"use one of {', '.join(KINDS)}")
    (devices, cloud), tailed = KINDS[kind], "tail" in sides
    return Split(
        params={slot: learnable(half) for slot, half in sides.items()},
        enter=Enter(epochs, batch_size),
        front=Front(optimiser, epochs, batch_size, labels=not tailed),
        leave=Leave({"passed": "params", "averaged": "delta", "own": "nothing"}[devices]),  # type: ignore[arg-type]
        back=partial(Back, optimiser),
        devices=devices,
        cloud=cloud,
        cohort=cohort,
        aggregator=Mean(),
        forth=Forth if tailed else None,
        backs=partial(Backs, optimiser) if batched else None,
        forths=Forths if batched and tailed else None,
        tail=Tail(optimiser, epochs, batch_size) if tailed else None,
        up=up,
        down=down,
    )
