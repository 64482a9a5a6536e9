"""What goes wrong, and when: a schedule is drawn from its seed, and the same seed draws the same one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FAULTS = {  # kind -> how often it is drawn, against the others
    "kill device": 4,
    "kill cloud": 4,
    "freeze cloud": 1,
    "leave": 1,
    "partition": 4,
    "delay": 2,
    "slow": 1,
    "cut": 3,
    "duplicate": 3,
    "corrupt": 3,
    "disk full": 3,
    "clock jump": 2,
    "publish": 2,
    "publish killed": 1,
    "tamper": 3,
}
PATIENCE = 0.4  # seconds that the cloud may take to answer


@dataclass(frozen=True)
class Action:
    """Something that happens.

    Attributes:
        at: seconds since the schedule began.
        kind: one of :data:`FAULTS`.
        given: what it takes, such as how long it lasts.
    """

    at: float
    kind: str
    given: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """What the user does: asks, and perhaps corrects the answer.

    Attributes:
        gap: seconds after the turn before it.
        sure: whether the device knows the answer by itself.
        correct: the label it should have been; None says nothing.
    """

    gap: float
    sure: bool
    correct: int | None


@dataclass(frozen=True)
class Schedule:
    """One run.

    Attributes:
        seed: of all of it.
        secure: TLS with an enrolled device; else plain text.
        ram: whether the folders lie on small file systems in memory, which can really be full.
        patient: whether the device has to come back by itself in the end, without being started again.
        actions: of the world, in their order.
        turns: of the user, beside them.
    """

    seed: int
    secure: bool
    ram: bool
    patient: bool
    actions: tuple[Action, ...]
    turns: tuple[Turn, ...]


def drawn(seed: int, seconds: float = 4.0) -> Schedule:
    """The schedule of a seed; its faults begin within so many seconds."""
    draw = random.Random(seed)
    secure = draw.random() < 0.75
    count = draw.randint(3, 8)
    times = sorted(draw.uniform(0.0, seconds) for _ in range(count))
    kinds = draw.choices(list(FAULTS), list(FAULTS.values()), k=count)
    actions = tuple(Action(at, kind, _given(kind, draw)) for at, kind in zip(times, kinds, strict=True))
    turns = tuple(
        Turn(min(1.0, draw.expovariate(5.0)), draw.random() < 0.3, draw.randrange(12) if draw.random() < 0.6 else None)
        for _ in range(draw.randint(10, 20))
    )
    return Schedule(seed, secure, draw.random() < 0.5, draw.random() < 0.1, actions, turns)


def _given(kind: str, draw: random.Random) -> dict[str, float | str]:
    lasts = round(draw.uniform(0.1, 2.0), 3)
    way, who = draw.choice(["up", "down"]), draw.choice(["device", "cloud"])
    match kind:
        case "kill device" | "kill cloud":
            return {"lasts": draw.choice([0.0, lasts])}
        case "freeze cloud":
            return {"lasts": lasts}
        case "partition":
            return {"way": draw.choice(["up", "down", "both"]), "lasts": lasts}
        case "delay":
            return {"way": way, "lasts": lasts, "seconds": round(draw.uniform(0.02, 0.6), 3)}
        case "slow":
            return {"way": way, "lasts": lasts, "rate": draw.choice([2e3, 2e4])}
        case "duplicate" | "corrupt":
            return {"way": way}
        case "disk full":
            return {"who": who, "lasts": lasts}
        case "clock jump":
            return {"who": who, "seconds": draw.choice([-4e8, -3600.0, 3600.0, 3e5, 4e8]), "lasts": lasts}
        case "tamper":
            return {"what": draw.choice(["blob", "metadata", "foreign", "older"]), "lasts": lasts}
        case "publish killed":
            return {"after": round(draw.uniform(0.3, 2.5), 3)}
    return {}
