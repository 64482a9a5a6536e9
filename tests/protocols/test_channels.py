"""Who tries a model first."""

import pytest

from duetto.protocols.channels import share, tries
from duetto.types import rng


def test_a_share_of_the_devices_always_the_same_and_a_larger_one_keeps_them() -> None:
    names = [f"phone-{i}" for i in range(2000)]
    few, many = ([tries(name, "small", at) for name in names] for at in (0.1, 0.3))
    assert few == [float(rng(("canary", "small", name)).random()) < 0.1 for name in names]
    assert abs(sum(few) / 2000 - 0.1) < 0.03
    assert all(b for a, b in zip(few, many, strict=True) if a)
    assert few != [tries(name, "other", 0.1) for name in names]
    assert not any(tries(name, "small", 0.0) for name in names)
    assert all(tries(name, "small", 1.0) for name in names)


@pytest.mark.parametrize(
    ("told", "want"), [({"canary": 0.25}, 0.25), ({}, 0), ({"canary": 2}, 0), ({"canary": "x"}, 0)]
)
def test_what_a_release_tells(told: dict[str, object], want: float) -> None:
    assert share(told) == want
