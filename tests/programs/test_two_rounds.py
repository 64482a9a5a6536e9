"""What two rounds cost: bytes, memory and operations that follow from what a method does."""

import pytest

from duetto import algorithms
from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.programs import two_rounds
from duetto.programs.two_rounds import Spent, spent
from duetto.training import last_layer

NET = two_rounds.network("fedavg")
PLAIN = spent("fedavg", NET)
PARAMS = NET.init(0)
ALL = 4 * NET.parameters
HEAD = sum(leaf.nbytes for pointer, leaf in trees.leaves(PARAMS) if pointer.startswith(f"/{last_layer(NET)[0]}/"))


def of(name: str) -> Spent:
    return spent(name, two_rounds.network(name))


def test_a_device_keeps_what_its_method_says() -> None:
    assert {name: of(name).kept_bytes for name in ("ditto", "scaffold", "fedper", "lg_fedavg", "apfl")} == {
        "ditto": ALL,
        "scaffold": ALL,
        "fedper": HEAD,
        "lg_fedavg": ALL - HEAD,
        "apfl": ALL + 8,
    }


def test_what_travels_is_split_as_the_method_splits() -> None:
    """To the bytes of the numbers; names come on top, once for each message."""
    names = PLAIN.down_bytes - ALL
    for name, numbers in {"fedper": ALL - HEAD, "lg_fedavg": HEAD, "scaffold": 2 * ALL}.items():
        assert numbers < of(name).down_bytes < numbers + 2.5 * names


def test_operations_are_counted_in_passes_over_rows() -> None:
    """Of every row APFL and Ditto have two gradients, pFedMe five, FedRep two for the head and one for the body."""
    times = {"apfl": 2, "ditto": 2, "pfedme": 5, "fedrep": 3, "scaffold": 1, "fedadam": 1}
    assert {name: of(name).flops / PLAIN.flops for name in times} == times


def test_a_first_round_that_is_longer_is_told() -> None:
    """FedMD trains ten passes more, and there is nothing to digest yet."""
    public, own = len(two_rounds.given(NET).public), len(two_rounds.rows()[0])
    forward = NET.work(1).flops
    fedmd = of("fedmd")
    assert fedmd.first_flops == 11 * PLAIN.flops + forward * public
    assert fedmd.flops == pytest.approx(PLAIN.flops * (1 + public / own) + forward * public)


def test_what_the_cloud_computes_is_not_the_device_s() -> None:
    """FedDF's asks two models and goes five times over the public inputs; DC-CCL's is done before the first round."""
    public, own = len(two_rounds.given(NET).public), len(two_rounds.rows()[0])
    feddf, dc_ccl = of("feddf"), of("dc_ccl")
    said = two_rounds.DEVICES * NET.work(public).flops
    assert feddf.flops == PLAIN.flops
    assert feddf.cloud_flops == pytest.approx(said + 5 * PLAIN.flops * public / own)
    assert dc_ccl.cloud_flops == 0 < dc_ccl.before_flops


def test_bytes_that_depend_on_values_say_so() -> None:
    assert [name for name in ("fedavg", "ifca", "heterofl") if of(name).varies] == ["ifca"]


def test_a_device_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_rounds, "COMMON", {**two_rounds.COMMON, "lr": 1e30})
    with pytest.raises(ConfigError, match=r"fedprox: user-.* holds NaN"):
        spent("fedprox", two_rounds.network("fedbn"))


def test_numbers_are_of_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a comparison adds around an algorithm is not the algorithm's."""
    assert set(two_rounds.NUMBERS) | set(two_rounds.NETS) <= set(algorithms.__all__)
    assert two_rounds.numbers("heterofl") == {"levels": (0.5,)}
    monkeypatch.setattr(two_rounds.personal, "METHODS", {"ditto": {"lam": 0.3, "around": 1}})
    assert two_rounds.numbers("ditto") == {"lam": 0.3}
