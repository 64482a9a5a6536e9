"""A fitted text router as a folder that can be read, checked and shipped; deciding from it needs numpy only.

Its JSON says in words and numbers what it is: policy and settings, what it was fitted on (items, users, the sha256 of
the data), what it promises; see :mod:`duetto.policies.sealed` for the two files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, WireError
from duetto.policies import sealed
from duetto.policies.embeddings import OnnxEmbedding, SentenceEmbedding, embedding
from duetto.policies.text_gain import TextGain
from duetto.tree import Array
from duetto.types import Action, Held, Key, Outcomes, Seen

FORMAT, VERSION = "duetto text router", 1


@dataclass(frozen=True)
class Decision:
    """What the router says of one prompt.

    Attributes:
        ask: whether to ask the large model.
        score: minus the predicted gain; asked are the lowest.
        threshold: the score from which on the small model answers.
        small, large: how good their answers are expected to be; None where the router had nothing to judge by.
        propensity: the probability with which it decided as it did.
        why: one phrase.
    """

    ask: bool
    score: float | None
    threshold: float
    small: float | None
    large: float | None
    propensity: float
    why: str


@dataclass(frozen=True, eq=False)
class Router:
    """A fitted policy and what is known of it.

    Attributes:
        held: the policy with its state.
        fitted_on: ``items``, ``users``, ``sha256`` of the data, and whatever else is worth knowing.
        promise: what is promised, by name: ``value``, ``low``, ``high``.
    """

    held: Held[Any]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    promise: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> TextGain:
        """The policy without its state."""
        assert isinstance(self.held.part, TextGain)
        return self.held.part

    def decide(self, prompt: str, answer: str | None = None, key: Key = ("router",)) -> Decision:
        """Whether to ask the large model for this prompt.

        Args:
            prompt: the text.
            answer: the small model's, if the router was fitted with answers.
            key: draws what is left to chance; number the decisions with it.

        Raises:
            DataError: a prompt that is no text, or no answer for a router that reads answers.
        """
        features = {"prompt": [prompt]} if answer is None else {"prompt": [prompt], "answer": [answer]}
        move, heads = self.policy.judged(self.held.state, Seen(stage=0, features=features, size=1), key)
        small, large = (None, None) if heads is None else (float(heads[0][0]), float(heads[1][0]))
        score = None if small is None or large is None else small - large
        ask, threshold = bool(move.action[0] == Action.ASK), float(self.held.state["threshold"])
        why = move.why
        if score is not None:
            sure = (score < threshold) == ask
            why = f"gain {-score:+.3f} {'above' if score < threshold else 'at most'} {-threshold:.3g}"
            why = why if sure else f"explored: {why}"
        return Decision(ask, score, threshold, small, large, float(move.propensity[0]), why)


def digest(outcomes: Outcomes) -> str:
    """The sha256 of a log's texts, qualities and users, however they were stored."""
    sha = hashlib.sha256()
    features = outcomes.seen.features if isinstance(outcomes.seen.features, Mapping) else {}
    for name in sorted(features):
        sha.update(json.dumps([name, [str(each) for each in features[name]]]).encode())
    users = None if outcomes.users is None else [str(each) for each in outcomes.users]
    sha.update(json.dumps([outcomes.small.tolist(), outcomes.large.tolist(), users]).encode())
    return sha.hexdigest()


def save(router: Router, folder: str | Path) -> Path:
    """Write a router to a folder, which is made where needed; the weights are written first.

    Raises:
        ConfigError: an embedding that is a callable of one's own: nobody else could load it.
        DataError: a folder that cannot be written.
    """
    about = {
        "policy": type(router.policy).__name__,
        "settings": _settings(router.policy),
        "fitted_on": dict(router.fitted_on),
        "promise": dict(router.promise),
    }
    return sealed.write(folder, FORMAT, VERSION, about, router.held.save())


def load(folder: str | Path, embed: Callable[[list[str]], Array] | None = None) -> Router:
    """Read a router from its folder, and check every byte of it.

    Args:
        folder: as :func:`save` wrote it.
        embed: in place of the embedding that it names.

    Raises:
        DataError: missing, damaged or changed files, or those of another program or version; one line says which.
    """
    about, data = sealed.read(folder, FORMAT, VERSION)
    settings = dict(about["settings"])
    path = settings.pop("embed", None)
    try:
        policy = TextGain(**{**settings, "views": tuple(settings["views"])})
        state = trees.decode(data)
    except (TypeError, KeyError, ConfigError, WireError) as fault:
        raise DataError(f"{folder} is no router that this version can read ({fault})", "fit anew") from fault
    if path is not None or embed is not None:
        policy = replace(policy, embed=embed or embedding(path))
    return Router(Held(policy, state), about["fitted_on"], about["promise"])


def _settings(policy: TextGain) -> dict[str, Any]:
    settings = {each.name: getattr(policy, each.name) for each in fields(policy)}
    embed = settings["embed"]
    if isinstance(embed, SentenceEmbedding) or (isinstance(embed, OnnxEmbedding) and embed.tokenise is None):
        settings["embed"] = embed.path
    elif embed is not None:
        raise ConfigError(
            f"an embedding that is {type(embed).__name__}", "use one with a path, which can be loaded again"
        )
    return settings


def probabilities(router: Router, seen: Seen, key: Key = ("router",)) -> np.ndarray:
    """``[n]`` with which probability each item is asked, for off-policy evaluation."""
    move, _ = router.policy.judged(router.held.state, seen, key)
    return np.where(np.asarray(move.action) == Action.ASK, move.propensity, 1 - np.asarray(move.propensity))
