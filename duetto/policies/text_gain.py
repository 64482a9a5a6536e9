"""Ask where a text says that the large model gains most: learned on a log, no key, no network, numpy to decide.

Two heads predict how good the small and the large model's answers will be; asked is where the difference is worth
its price. Difficulty alone is the wrong question: what both get wrong gains nothing (Ong et al. 2024 route on
preference for the same reason). The heads are the mean over several views of a text
(:mod:`duetto.policies.text_views`), each regularised by how well it predicts what it has not seen, with whole users
held out where there are users. A view that finds nothing predicts nearly the same for all and so hardly counts.
Weighting the views by their own held-out errors (stacking) was tried: better or far worse for users that are not in
the log, depending on the folds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies import text_features
from duetto.policies.text_views import Boosted, Linear, Text, View, standard
from duetto.tree import Array, Tree
from duetto.types import Action, Held, Key, Move, Outcomes, Policy, Seen, rng

LEAST = 20  # items below which nothing is learned
VIEWS = ("boosted", "characters", "linear", "words")
_ROWS = 10_000  # fitted on at most, for each strength that is tried


@dataclass(frozen=True)
class TextGain(Policy[Mapping[str, Any]]):
    """Ask where the predicted gain of asking is largest; read from the prompt and, in a cascade, the small answer.

    It reads ``seen.features["prompt"]`` and, if it was fitted with them, ``"answer"``: ``[n]`` texts. **Without
    texts, or before it was fitted, it always asks.** Kept items go on at stage 0 and stop later. A decision takes
    numpy only.

    State: ``views`` (each view's arrays), ``span`` (``[2]``: the lowest and highest quality seen), ``threshold`` (of
    the score, which is minus the gain), ``answers`` (whether it reads answers). Before fitting there is only
    ``threshold``, inf.

    Args:
        offload_rate: share to ask, 0..1; None asks where the gain is above the price.
        price: what a call costs, in units of quality.
        explore: share of decisions left to a fair coin, which makes the log good for off-policy evaluation.
        views: which of :data:`VIEWS` are averaged; "linear" only where there are answers.
        bits: n-grams are hashed to 2**bits buckets.
        folds: parts of the log, each predicted by what was fitted on the others.
        by: "user" keeps a user's items in one fold where the log has at least that many users; "item" does not.
        embed: from a list of texts to ``[n, d]`` numbers: one more view; see :mod:`duetto.policies.embeddings`.

    Raises:
        ConfigError: a number out of range, or an unknown view.
    """

    offload_rate: float | None = None
    price: float = 0.0
    explore: float = 0.0
    views: tuple[str, ...] = VIEWS
    bits: int = 15
    folds: int = 5
    by: Literal["user", "item"] = "user"
    embed: Callable[[list[str]], Array] | None = field(default=None)

    def __post_init__(self) -> None:
        if self.offload_rate is not None and not 0 <= self.offload_rate <= 1:
            raise ConfigError(f"an offload rate of {self.offload_rate}", "use a share from 0 to 1")
        if not math.isfinite(self.price):
            raise ConfigError(f"a price of {self.price}", "use a number, in units of quality")
        if not 0 <= self.explore <= 1:
            raise ConfigError(f"explore={self.explore}", "use a share from 0 to 1")
        if unknown := set(self.views) - set(VIEWS):
            raise ConfigError(f"no view is called {sorted(unknown)[0]!r}", f"use some of {', '.join(VIEWS)}")
        if not set(self.views) - {"linear"} and self.embed is None:
            raise ConfigError(f"views={self.views}", f"use some of {', '.join(VIEWS)}; linear reads answers only")
        if not 8 <= self.bits <= 20 or self.folds < 2 or self.by not in ("user", "item"):
            raise ConfigError(
                f"bits={self.bits}, folds={self.folds}, by={self.by!r}", "use bits 8..20, folds from 2, by user or item"
            )

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks."""
        return {"threshold": np.array(np.inf)}

    # ------------------------------------------------------------------------------------------------ deciding

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Ask, or keep, item by item; the same text under the same key is always decided alike."""
        return state, self.judged(state, seen, key)[0]

    def judged(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Move, tuple[Array, Array] | None]:
        """The move of :meth:`choose`, and what :meth:`heads` say; None where there was nothing to judge by."""
        texts = self._texts(state, seen)
        if texts is None or "views" not in state:
            why = "no text to judge by, so asked" if texts is None else "not fitted, so asked"
            return Move.sure(np.full(seen.size, Action.ASK), why), None
        at, (small, large) = float(state["threshold"]), self.heads(state, seen)
        asked = small - large < at
        propensity = np.ones(seen.size)
        if self.explore:
            draws = np.array([rng((*key, *(part or "" for part in text))).random(2) for text in texts]).reshape(-1, 2)
            done = np.where(draws[:, 0] < self.explore, draws[:, 1] < 0.5, asked)
            propensity = np.where(done == asked, 1 - self.explore / 2, self.explore / 2)
            asked = done
        keep = Action.GO if seen.stage == 0 else Action.STOP
        move = Move(np.where(asked, Action.ASK, keep).astype(np.int8), propensity, f"gain against {-at:.3g}")
        return move, (small, large)

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """Minus the predicted gain, ``[n]``: asked are those with the lowest.

        Raises:
            DataError: no texts.
            ConfigError: not fitted.
        """
        small, large = self.heads(state, seen)
        return np.asarray(small - large)

    def heads(self, state: Mapping[str, Any], seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        """How good the small and the large model's answers will be, each ``[n]`` in the log's units.

        Raises:
            DataError: no texts.
            ConfigError: not fitted.
        """
        texts = self._texts(state, seen)
        if texts is None:
            raise DataError("no prompts to judge by", 'give features={"prompt": [n] texts}')
        if "views" not in state:
            raise ConfigError("a text router that was not fitted", "fit it on a log first")
        views, (low, high) = self._views(bool(state["answers"])), state["span"]
        found = np.empty((len(texts), 2))
        # One by one, so that a text is judged alike, to the last bit, in whatever company it comes.
        for i, text in enumerate(texts):
            rows: dict[Any, Any] = {}
            each = [view.predict(state["views"][name], _row(view, text, rows)) for name, view in views.items()]
            found[i] = sum(each) / len(each)
        found = low + (high - low) * found
        return found[:, 0], found[:, 1]

    def _views(self, answers: bool) -> Mapping[str, View]:
        """The views that are averaged. The linear one is for answers: a prompt's looks alone are not linear."""
        names = {name for name in self.views if answers or name != "linear"} | {"embedding"}
        return {name: view for name, view in standard(self.bits, self.embed).items() if name in names}

    def _texts(self, state: Mapping[str, Any], seen: Seen) -> list[Text] | None:
        """The texts; None where there are none."""
        features = seen.features
        if not isinstance(features, Mapping) or "prompt" not in features:
            if seen.answer is not None and not np.isfinite(np.asarray(seen.answer, float)).all():
                raise DataError("logits that are NaN or infinite", "the model diverged or its input is corrupt")
            return None
        prompts = text_features.texts(features["prompt"])
        if "answers" in state and not bool(state["answers"]):
            return [(prompt, None) for prompt in prompts]
        if "answer" not in features:
            if "answers" in state:
                raise DataError("no answers, with which this router was fitted", 'give features["answer"] too')
            return [(prompt, None) for prompt in prompts]
        return list(zip(prompts, text_features.texts(features["answer"], "answer"), strict=True))

    # ------------------------------------------------------------------------------------------------- fitting

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Fit on a log; see :meth:`crossfit`."""
        return self.crossfit(outcomes)[0]

    def crossfit(self, outcomes: Outcomes) -> tuple[Held[Mapping[str, Any]], np.ndarray]:
        """Fit on a log, and say honestly what to expect.

        Args:
            outcomes: with ``seen.features["prompt"]`` and, for a cascade, ``"answer"``.

        Returns:
            The fitted router, and ``[n]`` scores that each item got from what was fitted without it (without its
            user, with ``by="user"``): what the threshold is set by and what a promise may rest on.

        Raises:
            DataError: no prompts, fewer than :data:`LEAST` items, or no item on which the models differ.
        """
        texts = self._texts({}, outcomes.seen)
        if texts is None:
            raise DataError("a log without prompts", 'give features={"prompt": [n] texts}')
        if len(texts) < LEAST:
            raise DataError(f"{len(texts)} items to learn from", f"log at least {LEAST}, better some hundreds")
        if not outcomes.gain.any():
            raise DataError("both models are equally good on every item", "log items on which they differ")
        both = np.stack([outcomes.small, outcomes.large], 1)
        low, high = float(both.min()), float(both.max())
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        quality, fold = (both - low) / (high - low), self._fold(outcomes)
        fitted: dict[str, Tree] = {}
        unseen = []
        shared: list[dict[Any, Any]] = [{} for _ in texts]
        answers = texts[0][1] is not None
        for name, view in self._views(answers).items():
            rows = [_row(view, text, own) for text, own in zip(texts, shared, strict=True)]
            strength = _strength(view, rows, quality, fold)
            found = np.empty_like(quality)
            for train, test in _parts(fold):
                part = view.fit([rows[i] for i in train], quality[train], strength)
                found[test] = [view.predict(part, rows[i]) for i in test]
            unseen.append(found)
            fitted[name] = view.fit(rows, quality, strength)
        mean = np.mean(unseen, axis=0)
        scores = np.asarray((mean[:, 0] - mean[:, 1]) * (high - low))
        state = {
            "views": fitted,
            "span": np.array([low, high]),
            "threshold": np.array(-self.price if self.offload_rate is None else quantile(scores, self.offload_rate)),
            "answers": np.array(answers),
        }
        return Held(self, state), scores

    def _fold(self, outcomes: Outcomes) -> np.ndarray:
        """``[n]`` the fold of each item."""
        n = len(outcomes)
        if self.by == "user" and outcomes.users is not None:
            names, which, count = np.unique(outcomes.users, return_inverse=True, return_counts=True)
            if len(names) >= self.folds:
                size, fold = np.zeros(self.folds), np.empty(len(names), np.int64)
                for user in rng(("text gain", "users")).permutation(len(names)):
                    fold[user] = size.argmin()
                    size[fold[user]] += count[user]
                return fold[which]
        return rng(("text gain", "items")).permutation(n) % self.folds


def quantile(scores: np.ndarray, share: float) -> float:
    """The threshold below which this share of scores lies; of equal scores all are, rather than none.

    -inf for a share of 0, inf for 1.
    """
    ordered, asked = np.sort(scores), round(share * len(scores))
    if share in (0, 1) or asked in (0, len(scores)):
        return -math.inf if asked == 0 else math.inf
    return float(np.nextafter(ordered[asked - 1], math.inf))


def _row(view: View, text: Text, shared: dict[Any, Any]) -> Any:
    """What a view reads of a text; views of the same kind of row share it."""
    name = "looks" if isinstance(view, Boosted | Linear) and getattr(view, "embed", None) is None else view
    if name not in shared:
        shared[name] = view.row(text)
    return shared[name]


def _parts(fold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for each in np.unique(fold):
        yield np.flatnonzero(fold != each), np.flatnonzero(fold == each)


def _strength(view: View, rows: list[Any], quality: np.ndarray, fold: np.ndarray) -> float:
    """The strength with which the view predicts best what it has not seen; of two alike, the stronger."""
    if len(view.strengths) == 1:
        return view.strengths[0]
    parts = list(_parts(fold))
    parts = parts[: max(1, min(len(parts), _ROWS // len(rows)))]
    errors = []
    for strength in view.strengths:
        missed = []
        for train, test in parts:
            part = view.fit([rows[i] for i in train], quality[train], strength)
            missed.append(((np.array([view.predict(part, rows[i]) for i in test]) - quality[test]) ** 2).sum(1))
        errors.append(float(np.concatenate(missed).mean()))
    return view.strengths[int(np.argmin(errors))]
