"""Parties that each hold some columns learn what one joint network learns on all of them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp
from duetto.models.net import built, to_tensors
from duetto.protocols.vertical import Ids, foretell, vertical
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.training.vertical import Bottom, Top
from duetto.types import Group, Local, Party, Peer, Record, rng

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(40, 5)), DRAW.integers(0, 3, 40)
COMMON = np.arange(6, 31)  # the bank knows 0 to 30, the shop 6 to 39, the labels are of all
LR = 0.3


def wide(params: Any) -> Any:
    return trees.map(lambda leaf: leaf.astype(np.float64), params)


NETS = {"bank": Mlp((2,), 4, (6,)), "shop": Mlp((3,), 4, ()), "top": Mlp((8,), 3, (5,))}
FIRST = {name: wide(net.init(i)) for i, (name, net) in enumerate(NETS.items())}
BOTTOMS = {name: Bottom(NETS[name], LR) for name in ("shop", "bank")}
TOP = Top(NETS["top"], LR)


def held(name: str, missing: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """A party's columns, its rows in an order of its own."""
    ids = np.random.default_rng(len(name) + 7).permutation(np.arange(31) if name == "bank" else np.arange(6, 40))
    ids = ids[~np.isin(ids, missing)]
    return {"ids": ids, "x": X[ids][:, :2] if name == "bank" else X[ids][:, 2:]}


def learned(epochs: int = 3, data: Any = held, role: Any = None, skills: Any = (Bottom, Ids), **more: Any) -> Log:
    """The cloud has the labels; everybody starts with known parameters in float64."""
    everyone = fleet("phones", ["bank", "shop"], data=data)
    role = role or vertical(BOTTOMS, TOP, epochs=epochs, batch_size=7, seed=5, **more)
    cloud = Party((role,), (Top,), Local({"ids": np.arange(40), "y": Y}, {"params": FIRST["top"]}))
    return simulate(fleet=everyone, device=Party(skills=skills), cloud=cloud)


def joint(epochs: int, first: dict[str, Any], dtype: torch.dtype) -> tuple[dict[str, Any], list[float]]:
    """One network, all columns, the same batches."""
    leaves = {
        name: {key: leaf.to(dtype).clone().requires_grad_() for key, leaf in to_tensors(params).items()}
        for name, params in first.items()
    }
    modules, losses = {name: built(net) for name, net in NETS.items()}, []
    x, y = torch.tensor(X).to(dtype), torch.tensor(Y)
    for epoch in range(epochs):
        order = rng((5, "vertical", "order", epoch)).permutation(len(COMMON))
        for at in range(0, len(order), 7):
            ids = COMMON[order[at : at + 7]]
            bank = functional_call(modules["bank"], leaves["bank"], (x[ids, :2],))
            shop = functional_call(modules["shop"], leaves["shop"], (x[ids, 2:],))
            logits = functional_call(modules["top"], leaves["top"], (torch.cat([bank, shop], 1),))
            loss = functional.cross_entropy(logits, y[ids])
            losses.append(float(loss.detach()))
            loss.backward()
            for each in leaves.values():
                for leaf in each.values():
                    leaf.data -= LR * leaf.grad
                    leaf.grad = None
    return {name: {key: leaf.detach().numpy() for key, leaf in each.items()} for name, each in leaves.items()}, losses


def same(params: Any, expected: dict[str, np.ndarray], rtol: float, atol: float) -> None:
    for pointer, leaf in trees.leaves(params):
        np.testing.assert_allclose(leaf, expected[pointer[1:].replace("/", ".")], rtol=rtol, atol=atol)


def test_split_parties_learn_what_a_joint_network_learns() -> None:
    """In float32, as devices begin."""
    log = learned()
    first = {"bank": NETS["bank"].init(0), "shop": NETS["shop"].init(0), "top": FIRST["top"]}
    found, losses = joint(3, first, torch.float32)
    for name in ("bank", "shop"):
        same(log.memory[name]["params"], found[name], 1e-4, 1e-5)
    np.testing.assert_allclose([record.metrics["loss"] for record in log.records], losses, rtol=1e-4)
    assert {record.metrics["failed"] for record in log.records} == {0}
    assert min(record.cost.up_bytes for record in log.records) > 0


def test_in_float64_it_is_the_same_to_1e_10() -> None:
    cells = {name: Local(held(name), {"params": FIRST[name]}) for name in ("bank", "shop")}
    labels, back = Local({"ids": np.arange(40), "y": Y}, {"params": FIRST["top"]}), {"bank": {}, "shop": {}}
    for epoch in range(3):
        order = rng((5, "vertical", "order", epoch)).permutation(len(COMMON))
        for at in range(0, len(order), 7):
            ids, features = COMMON[order[at : at + 7]], {}
            for name, bottom in BOTTOMS.items():
                cells[name], said = bottom(cells[name], {"ids": ids, **back[name]}, (), "cloud")
                features[name] = said["features"]
            labels, said = TOP(labels, {"ids": ids, "features": features}, (), "cloud")
            back = {name: {"last": ids, "slope": said["slopes"][name]} for name in cells}
    for name, bottom in BOTTOMS.items():
        cells[name], _ = bottom(cells[name], {"ids": COMMON[:0], **back[name]}, (), "cloud")
    found, _ = joint(3, FIRST, torch.float64)
    for name, cell in {**cells, "top": labels}.items():
        same(cell.memory["params"], found[name], 1e-10, 1e-12)


def test_all_together_answer() -> None:
    found: list[Any] = []

    async def role(me: Peer, fleet: Group) -> Any:
        found.append(await foretell(fleet, me, BOTTOMS, TOP, np.array([9, 30]), key=(0,)))
        yield Record("vertical")

    learned(role=role)
    assert found[0]["logits"].shape == (2, 3)
    parts = [
        NETS[name].logits(NETS[name].init(0), X[[9, 30]][:, cut])
        for name, cut in (("bank", slice(2)), ("shop", slice(2, 5)))
    ]
    expected = NETS["top"].logits(
        trees.map(lambda leaf: leaf.astype(np.float32), FIRST["top"]), np.concatenate(parts, 1)
    )
    np.testing.assert_allclose(found[0]["logits"], expected, rtol=1e-4, atol=1e-5)


def test_a_batch_that_a_party_misses_trains_nobody() -> None:
    """The devices offer the bank's network only."""
    log = learned(skills=(Ids, Bottom(NETS["bank"], LR)))
    assert {record.metrics["failures"] for record in log.records} == {"shop: shop does not offer Bottom"}
    assert all("loss" not in record.metrics for record in log.records)
    assert "cloud" not in log.memory


def test_parties_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^0 parties, 1 epochs in batches of 7: "):
        vertical({}, TOP, epochs=1, batch_size=7)
    with pytest.raises(ConfigError, match=r"^bank does not tell its ids \(bank does not offer Ids\): "):
        learned(skills=(Bottom,))
    with pytest.raises(ConfigError, match=r"^no id that all parties have: "):
        learned(data=lambda name: held(name, tuple(COMMON)))
    twice = Local({"ids": np.array([3, 3]), "x": X[:2]})
    with pytest.raises(DataError, match=r"^a party with an id twice: "):
        Ids()(twice, {}, (), "cloud")
    with pytest.raises(DataError, match=r"^asked about an id that is not here: "):
        BOTTOMS["bank"](Local(held("bank")), {"ids": np.array([35])}, (), "cloud")
    message = {"ids": COMMON[:2], "last": COMMON[:2], "slope": np.zeros((1, 4))}
    with pytest.raises(DataError, match=r"^a slope of shape \(1, 4\) for features \(2, 4\): "):
        BOTTOMS["bank"](Local(held("bank")), message, (), "cloud")
    with pytest.raises(DataError, match=r"^4 features for a top network of \(8,\): "):
        TOP(Local(), {"features": {"bank": np.zeros((2, 4))}}, (), "cloud")
    with pytest.raises(ConfigError, match=r"^lr=-1: "):
        Bottom(NETS["bank"], -1)
