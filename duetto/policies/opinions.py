"""What several models think of one answer: how far they stand behind it, and how much they differ."""

from __future__ import annotations

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.scores import confidence
from duetto.types import Seen

OPINIONS = ("agreement", "information", "own", "pairs", "votes")
_TINY = 1e-6  # of a vote or a pair: mean probabilities tell ties apart


def opinion(own: np.ndarray, members: np.ndarray, measure: str) -> np.ndarray:
    """One number an item, ``[n]`` float64; high is agreement.

    - ``own``: the members' mean probability of the own answer.
    - ``votes``: the share of members that give the own answer; ties by ``own``.
    - ``agreement``: minus the entropy of the mean, as a share of the largest one, plus 1.
    - ``information``: minus the mutual information of answer and member, in nats.
    - ``pairs``: minus the expected share of pairs of members that answer differently; ties by ``own``.

    Args:
        own: ``[n]`` the answer that is judged, a class.
        members: ``[n, k, classes]`` logits, finite.
        measure: one of :data:`OPINIONS`.

    Raises:
        ConfigError: an unknown measure.
    """
    if measure not in OPINIONS:
        raise ConfigError(f"no measure is called {measure!r}", f"use one of {', '.join(OPINIONS)}")
    log = members - _log_total(members)
    probability = np.exp(log)
    behind = probability[np.arange(len(own)), :, own].mean(1)
    if measure == "own":
        return np.asarray(behind)
    if measure in ("votes", "pairs"):
        said, k = members.argmax(2), members.shape[1]
        if measure == "votes":
            return np.asarray((said == own[:, None]).mean(1) + _TINY * behind)
        count = (said[:, :, None] == np.arange(members.shape[2])).sum(1)
        alike = (count * (count - 1)).sum(1) / (k * (k - 1)) if k > 1 else np.ones(len(own))
        return np.asarray(alike - 1 + _TINY * behind)
    whole = _entropy(probability.mean(1))
    if measure == "agreement":
        return np.asarray(1 - whole / np.log(max(2, members.shape[2])))
    apart = -(probability * np.maximum(log, -700)).sum(2).mean(1)
    return np.asarray(np.minimum(apart - whole, 0))


def members_of(seen: Seen) -> np.ndarray:
    """The members' logits, ``[n, k, classes]`` float64: ``seen.scores``, or where there are none the own answer alone.

    Raises:
        DataError: no answers, members of another shape, or logits that are not finite.
    """
    confidence(seen.answer)  # refuses what is missing, NaN or of another shape
    answer = np.asarray(seen.answer, np.float64)
    if seen.scores is None:
        return answer[:, None]
    members = np.asarray(seen.scores, np.float64)
    if members.ndim != 3 or not members.shape[1] or (len(members), members.shape[2]) != answer.shape:
        raise DataError(
            f"members' logits of shape {members.shape} beside answers {answer.shape}", "give [n, members, classes]"
        )
    if not np.isfinite(members).all():
        raise DataError("members' logits that are NaN or infinite", "a member diverged or its input is corrupt")
    return members


def _log_total(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(2, keepdims=True)
    return np.asarray(largest + np.log(np.exp(logits - largest).sum(2, keepdims=True)))


def _entropy(share: np.ndarray) -> np.ndarray:
    return np.asarray(-(share * np.log(np.where(share > 0, share, 1))).sum(1))
