"""Every codec, aggregator and policy of the package, found by walking it; a new part is tested by existing.

A test that takes one of VIEWS runs once for every example in it. A class that cannot be built without arguments
needs a line in EXAMPLES.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import duetto
from duetto import tree as trees
from duetto.aggregation import CentredClip, GeometricMedian, Krum, Mean, Median, Stack, Trimmed
from duetto.codecs import (
    QSGD,
    Feedback,
    Lz4,
    PowerSGD,
    Progressive,
    Quantise,
    RandomK,
    Ranged,
    Rans,
    Sign,
    TopK,
    Zstd,
)
from duetto.policies import (
    OPINIONS,
    Anytime,
    Audited,
    Balanced,
    Boosted,
    Budgeted,
    BySize,
    Calibrated,
    Capped,
    Consented,
    Deadline,
    Disagreed,
    Dual,
    Ensemble,
    EpsilonGreedy,
    ExitOrCut,
    Exits,
    KCentre,
    LearnedCascade,
    LearnedGain,
    LeastAvailable,
    LeastSure,
    LinUCB,
    Logistic,
    Neighbours,
    Network,
    Oort,
    OverSelected,
    Poisson,
    PowerOfChoice,
    RandomSample,
    Reinforced,
    Retrieval,
    RiskControlled,
    Selected,
    Spread,
    TextGain,
    Thompson,
    Threshold,
    Tier,
    Tiers,
    Uniform,
    Watched,
    Widening,
)
from duetto.types import Aggregator, Chain, Codec, Held, Outcomes, Policy, Seen

RANS = Rans((("/float32", 1, ((3, 1, 2, 5),)), ("/x/float64", 1, ((1, 1, 1, 9),))))
LIBRARIES = {"Lz4": "lz4", "Rans": "constriction"}  # of an extra: what lacks its library is left out
KINDS = {"codec": Codec, "aggregator": Aggregator, "policy": Policy}
EXAMPLES: dict[type, list[Any]] = {
    Chain: [
        Chain(),
        Chain((Zstd(),)),
        Chain((Quantise(8), Zstd())),
        Chain((Ranged(2, (("", -1.0, 2.0), ("/x", 0.0, 3.0)), packed=False), RANS)),
        Chain((Quantise(4, "channel", stochastic=True), Zstd(3))),
    ],
    Quantise: [
        Quantise(bits, axis, stochastic)
        for bits in (8, 4, 2)
        for axis in ("leaf", "channel")
        for stochastic in (False, True)
    ],
    Ranged: [
        Ranged(8, (("", -1.0, 2.0), ("/x", 0.0, 3.0))),
        Ranged(4, (("", -1.0, 2.0), ("/x", 0.0, 3.0))),
        Ranged(2, (("", 0.0, 1e9), ("/x", -2.0, 2.0)), packed=False),
    ],
    Progressive: [
        Progressive(Ranged(8, (("", -1.0, 2.0), ("/x", 0.0, 3.0))), (4, 4)),
        Progressive(Ranged(4, (("", -1.0, 2.0),)), (2, 2), (("", tuple(range(16))),)),
    ],
    Zstd: [Zstd(), Zstd(19)],
    Lz4: [Lz4(), Lz4(9)],
    Rans: [Rans(), RANS],
    TopK: [TopK(0.1), TopK(0.9), TopK(1.0)],
    RandomK: [RandomK(0.3), RandomK(0.5, unbiased=True)],
    Feedback: [Feedback(TopK(0.3)), Feedback(Chain((TopK(0.2), Quantise(8), Zstd())))],
    PowerSGD: [PowerSGD(1), PowerSGD(3)],
    QSGD: [QSGD(15), QSGD(1)],
    Sign: [Sign()],
    Mean: [Mean(), Mean(cap=2.0)],
    Stack: [Stack()],
    Median: [Median()],
    Trimmed: [Trimmed(0.0), Trimmed(0.2)],
    Krum: [Krum(0, keep=3), Krum(1)],
    GeometricMedian: [GeometricMedian(), GeometricMedian(5, 0.1, weighted=True)],
    CentredClip: [CentredClip(0.1), CentredClip(100.0, 1)],
    Threshold: [Threshold(0.7), Threshold(1.5, "energy"), Threshold(float("inf"))],
    Calibrated: [
        Calibrated(),
        Calibrated("energy", 5.0, "example", 0.5, "vector"),
        Calibrated("margin", scaling="isotonic"),
    ],
    Budgeted: [
        Budgeted(Calibrated(), 0.3),
        Budgeted(Threshold(0.5, "energy"), 0.0),
        Budgeted(Threshold(0.5, "margin"), 1.0, step=0.5),
    ],
    RiskControlled: [
        RiskControlled(Calibrated(), "expected", 0.4),
        RiskControlled(Threshold(0.5, "margin"), "confident", 0.45, delta=0.3),
        RiskControlled(Threshold(0.5, "energy"), "approximate", 0.3, worst_user=0.2),
        RiskControlled(Threshold(0.5), "quantile", 0.01),
    ],
    Exits: [
        Exits(RiskControlled(Calibrated(), "expected", 0.4)),
        Exits(RiskControlled(Threshold(0.5, "margin"), "approximate", 0.3, worst_user=0.2)),
    ],
    Anytime: [
        Anytime(Exits(RiskControlled(Threshold(0.5), "expected", 0.4)), 0.1, ((1, 0.05), (2, 0.2))),
        Anytime(Threshold(0.5), 1.0, ()),
    ],
    ExitOrCut: [
        ExitOrCut(Threshold(0.5)),
        ExitOrCut(Threshold(2.0), exits=Exits(RiskControlled(Calibrated(), "expected", 0.4))),
    ],
    Audited: [
        Audited(RiskControlled(Threshold(0.5), "expected", 0.4), 0.1, share=0.3, step=0.1),
        Audited(Threshold(0.5, "energy"), 0.01),
    ],
    Watched: [Watched(Audited(Calibrated(), 0.1)), Watched(Calibrated(), "kswin", ("confidence",), every=100)],
    Widening: [
        Widening((1.0, 2.0, 4.0), (1.0, 1.5, 3.0)),
        Widening((1.0, 9.0), (1.0, 3.0), (0.0, 0.5), 5.0, 3.0, loss=0.2, score="margin"),
        Widening((1.0, 2.0, 9.0), (1.0, 1.5, 3.0), like=0),
    ],
    LearnedGain: [
        LearnedGain(),
        LearnedGain(Neighbours(5), 0.1),
        LearnedGain(Boosted(10, least=3), 0.05),
        LearnedGain(Network(4, steps=30), -0.1),
    ],
    LearnedCascade: [LearnedCascade(), LearnedCascade(0.2, Logistic(0.1))],
    Ensemble: [Ensemble(measure) for measure in OPINIONS],
    Selected: [Selected((Threshold(0.5), LearnedGain(), LearnedCascade()), folds=3)],
    Spread: [Spread(), Spread("width", 0.1)],
    Retrieval: [Retrieval(0.0), Retrieval(3.0, 2, LearnedGain())],
    Tiers: [Tiers((Tier("edge", 0.01, 0.1), Tier("cloud", 0.1, 0.5)), 0.1), Tiers((Tier("cloud"),))],
    Uniform: [Uniform(3), Uniform(share=0.4)],
    Poisson: [Poisson(0.7)],
    BySize: [BySize(3)],
    PowerOfChoice: [PowerOfChoice(3, 9)],
    Oort: [Oort(3), Oort(5, explore=0.0, least=0.0, window=1, most=1)],
    TextGain: [TextGain(), TextGain(offload_rate=0.3, explore=0.2)],
    Deadline: [Deadline(3, 5.0)],
    LeastAvailable: [LeastAvailable(3)],
    OverSelected: [OverSelected(Uniform(3)), OverSelected(Oort(2), 2.0)],
    LinUCB: [LinUCB(), LinUCB(0.0, price=0.4, full_information_on_ask=True)],
    Thompson: [Thompson(), Thompson(2.0, 12, price=0.2)],
    EpsilonGreedy: [EpsilonGreedy(), EpsilonGreedy(1.0, price=0.4), EpsilonGreedy(full_information_on_ask=True)],
    Dual: [Dual(Threshold(0.5), 0.3), Dual(LinUCB(), 0.3, spend_all=False), Dual(Calibrated(), 0.0, start=0.0)],
    Capped: [Capped(Threshold(0.9), 5, 20), Capped(Thompson(), 3, 7, 1.0), Capped(Dual(Threshold(0.5), 0.5), 0, 1)],
    Reinforced: [Reinforced(), Reinforced(3, sampled=True)],
    RandomSample: [RandomSample(3)],
    LeastSure: [LeastSure(3), LeastSure(40, "entropy")],
    Disagreed: [Disagreed(3)],
    KCentre: [KCentre(3)],
    Balanced: [Balanced(5)],
    Consented: [Consented(LeastSure(4), True, 3), Consented(KCentre(5), given=True, samples=9, period=2.0)],
}
ITEMS, CLASSES = 23, 4
DRAW = np.random.default_rng(7)
LOGITS = DRAW.normal(size=(ITEMS, CLASSES)) * 3
LABELS = np.where(DRAW.random(ITEMS) < 0.8, LOGITS.argmax(axis=1), 0)
OUTCOMES = Outcomes.of_classifiers(LOGITS, None, LABELS, np.arange(ITEMS) % 5)
TEXTS = np.array([f"What is {i} times {i + 1}, or is it {'even' if i % 2 else 'odd'}?" for i in range(ITEMS)], object)
WRITTEN = replace(OUTCOMES, seen=Seen(features={"prompt": TEXTS}, size=ITEMS))


@cache
def found() -> dict[type, str]:
    """Every part's class with its kind."""
    classes = {}
    for info in sorted(pkgutil.walk_packages(duetto.__path__, "duetto."), key=lambda info: info.name):
        if info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("duetto"):
                raise
            continue  # an extra that is not installed
        for _, cls in inspect.getmembers(module, inspect.isclass):
            kind = next((kind for kind, base in KINDS.items() if issubclass(cls, base)), None)
            if kind and cls.__module__ == info.name and not inspect.isabstract(cls):
                classes[cls] = kind
    return classes


def examples(cls: type) -> list[Any]:
    """Instances of a class; none where it needs arguments and has no line in EXAMPLES."""
    if cls in EXAMPLES:
        return EXAMPLES[cls]
    try:
        return [cls()]
    except Exception:  # whatever a constructor asks for, the answer is a line in EXAMPLES
        return []


def states(part: Any) -> list[Any]:
    """A policy with its first state, and with a fitted one where it can be fitted; nobody can write to them."""
    held = [Held.of(part)]
    if hasattr(part, "fit"):
        held.append(part.fit(WRITTEN if isinstance(part, TextGain) else OUTCOMES))
    for each in held:
        trees.map(lambda leaf: leaf.setflags(write=False), each.state)
    return held


def runs(codec: Any) -> bool:
    """Whether the libraries are here that a codec, or what it is made of, needs."""
    return all(find_spec(library) for name, library in LIBRARIES.items() if f"{name}(" in repr(codec))


def is_cohort(part: Any) -> bool:
    """Whether a policy chooses a cohort; such a policy says how it samples."""
    return hasattr(part, "sampling")


VIEWS: dict[str, Callable[[str, Any], list[Any]]] = {
    "part": lambda kind, part: [part],
    "codec": lambda kind, part: [part] * (kind == "codec" and runs(part)),
    "chancy_codec": lambda kind, part: [part] * getattr(part, "stochastic", False),
    "aggregator": lambda kind, part: [part] * (kind == "aggregator"),
    "linear_aggregator": lambda kind, part: [part] * (kind == "aggregator" and part.linear),
    "held": lambda kind, part: states(part) if kind == "policy" else [],
    "itemwise_held": lambda kind, part: states(part) if kind == "policy" and not is_cohort(part) else [],
    "scored_held": lambda kind, part: states(part) if kind == "policy" and hasattr(part, "scores") else [],
    "cohort_policy": lambda kind, part: [part] * (kind == "policy" and is_cohort(part)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run for every example in the view that the test asks for."""
    for name, view in VIEWS.items():
        if name in metafunc.fixturenames:
            rows = [(cls, row) for cls, kind in found().items() for part in examples(cls) for row in view(kind, part)]
            assert rows, f"the walk found no {name}"
            ids = [f"{cls.__name__}-{i}" for i, (cls, _) in enumerate(rows)]
            metafunc.parametrize(name, [row for _, row in rows], ids=ids)


@pytest.fixture
def classes() -> dict[type, str]:
    """Every part's class with its kind."""
    return found()


@pytest.fixture
def without_example() -> list[str]:
    """The classes that no law can reach."""
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in found() if not examples(cls)]
