"""What a learned router reads, and what it refuses to read."""

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.policies.opinions import OPINIONS, opinion
from duetto.policies.signals import reads, signals, statistics
from duetto.types import Seen

DRAW = np.random.default_rng(0)
LOGITS, FEATURES = DRAW.normal(size=(6, 3)), DRAW.normal(size=(6, 2))
MEMBERS = DRAW.normal(size=(6, 4, 3))


def test_columns_stand_side_by_side() -> None:
    seen = Seen(stage=1, answer=LOGITS, features=FEATURES, scores=MEMBERS, size=6)
    assert reads(seen).tolist() == [3, 2, 4]
    opinions = np.stack([opinion(LOGITS.argmax(1), MEMBERS, measure) for measure in OPINIONS], axis=1)
    wanted = np.concatenate([statistics(seen), opinions, FEATURES], axis=1)
    assert signals(seen, reads(seen)).tolist() == wanted.tolist()
    assert signals(seen, np.array([0, 2, 0])).tolist() == FEATURES.tolist()


def test_the_statistics_do_not_know_which_class_is_which() -> None:
    one, other = (Seen(stage=1, answer=logits, size=6) for logits in (LOGITS, LOGITS[:, [2, 0, 1]]))
    assert statistics(one) == pytest.approx(statistics(other))


def test_certainty_and_a_class_that_is_ruled_out_stay_finite() -> None:
    seen = Seen(stage=1, answer=np.array([[900.0, 0, -900], [0, 0, -np.inf]]), size=2)
    assert np.isfinite(statistics(seen)).all()


def test_what_is_missing_or_broken_is_refused() -> None:
    for seen in (
        Seen(size=3),
        Seen(stage=1, answer=LOGITS * np.nan, size=6),
        Seen(stage=1, answer=LOGITS, features=FEATURES[:, 0], size=6),
        Seen(stage=1, answer=LOGITS, scores=MEMBERS[:, :, :2], size=6),
    ):
        with pytest.raises(DataError):
            signals(seen, reads(seen))
