"""Whether a share has fallen: the formulas, and the error that is promised, between devices too."""

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.evaluation.shares import fallen, held, share, shared


def test_by_hand() -> None:
    assert share(90, 100) == pytest.approx((91 / 102, 91 / 102 * (11 / 102) / 102), rel=1e-12)
    # the ratio of sums, and its variance between devices: d / (d - 1) * sum of (hits - ratio * n)^2 / n^2
    hits, n = np.array([10.0, 0.0, 20.0]), np.array([10.0, 10.0, 30.0])
    between = 3 / 2 * ((hits - hits.sum() / n.sum() * n) ** 2).sum() / n.sum() ** 2
    assert between > share(30, 50)[1]
    assert shared(hits.tolist(), n.tolist()) == (31 / 52, pytest.approx(between, rel=1e-12))
    assert shared([30.0], [50.0]) == share(30, 50)
    assert shared([10.0, 10.0], [20.0, 20.0]) == share(20, 40)  # devices that are alike: the binomial one
    with pytest.raises(DataError, match="2 counts of 1"):
        shared([1.0, 2.0], [3.0])


def test_what_is_shown_by_hand() -> None:
    before, after = (0.9, 0.0004), (0.8, 0.0005)
    error = np.sqrt(0.0009)  # 0.03; the quantile of 0.95 is 1.645
    assert (0.9 - 0.8 - 0.05) / error > 1.645
    assert fallen(before, after, 0.05, 0.05)
    assert not fallen(before, after, 0.06, 0.05)
    assert (0.15 - (0.9 - 0.8)) / error > 1.645
    assert held(before, after, 0.15, 0.05)
    assert not held(before, after, 0.14, 0.05)


def test_devices_that_differ_fool_a_test_that_takes_answers_for_independent_but_not_this_one() -> None:
    draw, runs, devices, each = np.random.default_rng(0), 1000, 20, 50
    wrong = {"between": 0, "binomial": 0}
    for _ in range(runs):
        sides = []
        for _ in range(2):
            rates = draw.beta(8, 2, devices)
            sides.append(draw.binomial(each, rates).astype(float).tolist())
        n = [float(each)] * devices
        wrong["between"] += fallen(shared(sides[0], n), shared(sides[1], n), 0.0, 0.05)
        wrong["binomial"] += fallen(share(sum(sides[0]), sum(n)), share(sum(sides[1]), sum(n)), 0.0, 0.05)
    limit = 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / runs) + 0.01  # a normal quantile for 38 degrees of freedom
    assert wrong["between"] / runs <= limit
    assert wrong["binomial"] / runs > 2 * limit
