"""A plan's costs from its parts: bytes of real messages, seconds of the roofline, and the three ways without a cut."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.evaluation.result import Result
from duetto.models import Conv, Speech, Staged, stage
from duetto.policies.cuts import COMPRESSED, DEVICE, RAW
from duetto.programs import plan
from duetto.simulation import energy

NET = Conv((3, 16, 16), 10, (8, 16))
STAGED: Staged = stage(NET.module(), torch.zeros(1, 3, 16, 16))
X = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
PHONE, CLOUD = energy.profiles()["low-end-phone"], energy.profiles()["cloud-gpu"]


def costed(**more: Any) -> plan.Costed:
    return plan.costed(STAGED, {"x": X}, PHONE, CLOUD, **more)


def test_bytes_are_those_of_the_messages_that_the_skills_exchange() -> None:
    found = costed()
    for name, nbytes in found.nbytes.items():
        codec = plan.CODECS[name]
        for cut, size in list(zip(found.cuts, nbytes, strict=True))[1:-1]:
            message = {"cut": np.int64(cut), "features": STAGED[:cut]({"x": X[:1]})}
            coded = codec.encode(codec.init(), message, ("plan", cut))[1]
            assert size == len(trees.encode(coded)), (name, cut)


def test_seconds_are_sums_of_the_roofline() -> None:
    found = costed()
    for cut, here, there in zip(found.cuts, found.device_seconds, found.cloud_seconds, strict=True):
        for profile, seconds in ((PHONE, here), (CLOUD, there)):
            works = [s.work for s in STAGED.stages[:cut]]
            parts = [max(w.flops / profile.flops, w.bytes / profile.memory_bandwidth) for w in works]
            assert seconds == pytest.approx(sum(parts))


def test_measured_seconds_stand_in_for_a_profile() -> None:
    seconds = np.arange(1.0, len(STAGED) + 1)
    found = plan.costed(STAGED, {"x": X}, seconds, CLOUD)
    assert found.device_seconds.tolist() == [seconds[:cut].sum() for cut in found.cuts]


def test_few_cuts_are_spread_over_the_work() -> None:
    found = costed(most=4)
    assert len(found.cuts) <= 4
    assert found.cuts[0] == 0
    assert found.cuts[-1] == len(STAGED)
    with pytest.raises(ConfigError, match="look at 3 at least"):
        costed(most=2)
    with pytest.raises(ConfigError, match="no codec is called 'jpeg'"):
        costed(names=("jpeg",))


def planned(given: plan.Input, up: float, **more: Any) -> plan.Outlook:
    return plan.planned(
        costed(),
        given,
        objective="latency",
        device=PHONE,
        cloud=CLOUD,
        radio=energy.radios()["wifi"],
        prices=energy.prices()["default"],
        up_mbps=up,
        down_mbps=up,
        rtt_seconds=0.05,
        **more,
    )


def test_the_three_ways_without_a_cut_are_always_there() -> None:
    given = plan.Input(768.0, 300.0, "made up")
    found = planned(given, 5.0)
    assert found.options.label[:3] == (DEVICE, RAW, COMPRESSED)
    whole = costed()
    answer = found.options.down_bytes[1] * 8e-6 / 5
    device = PHONE.overhead_seconds + whole.device_seconds[-1]
    cloud = CLOUD.overhead_seconds + whole.cloud_seconds[-1]
    wanted = [device, 768 * 8e-6 / 5 + 0.05 + cloud + answer, 300 * 8e-6 / 5 + 0.05 + cloud + answer]
    np.testing.assert_allclose(found.costs.seconds[:3], wanted)
    assert not found.verdict.split
    assert found.verdict.why.startswith("do not split")


def test_a_heavy_input_over_a_thin_link_is_split() -> None:
    slow = plan.Input(1e7, 1e7, "made up")
    costs = plan.costed(STAGED, {"x": X}, np.r_[np.zeros(3), np.full(len(STAGED) - 3, 10.0)], CLOUD)
    found = plan.planned(
        costs,
        slow,
        objective="latency",
        device=PHONE,
        cloud=CLOUD,
        radio=energy.radios()["wifi"],
        prices=energy.prices()["default"],
        up_mbps=1.0,
        down_mbps=1.0,
        rtt_seconds=0.05,
    )
    assert found.verdict.split
    assert found.verdict.label.startswith("cut 3")


def split() -> plan.Outlook:
    """A net that is best cut over thin links."""
    costs = plan.costed(STAGED, {"x": X}, np.r_[np.zeros(3), np.full(len(STAGED) - 3, 10.0)], CLOUD)
    return plan.planned(
        costs,
        plan.Input(1e6, 1e6, "made up"),
        objective="latency",
        device=PHONE,
        cloud=CLOUD,
        radio=energy.radios()["wifi"],
        prices=energy.prices()["default"],
        up_mbps=2.0,
        down_mbps=6.0,
        rtt_seconds=0.05,
        queue_seconds=0.01,
    )


def test_a_map_is_the_best_plan_at_every_link() -> None:
    made = split()
    found = plan.mapped(made, energy.radios()["wifi"], "a net")
    assert tuple(found.at) == (2.0, 0.05)
    assert found.unit == "s"
    options = made.options
    for i, j in ((0, 0), (10, 40), (48, 80), (30, 20)):
        up, rtt = found.up_mbps[j], found.rtt_seconds[i]
        link = 8e-6 * (options.up_bytes / up + options.down_bytes / (3 * up)) + rtt + 0.01 + options.cloud_seconds
        seconds = options.device_seconds + np.where(options.up_bytes > 0, link, 0.0)
        assert found.plans[found.best[i][j]] == options.label[int(seconds.argmin())]
        plain = min(seconds[options.label.index(name)] for name in (DEVICE, COMPRESSED))
        assert found.gain[i][j] == pytest.approx(plain - seconds.min(), rel=1e-5, abs=1e-9)
    kinds = dict(zip(found.plans, found.kinds, strict=True))
    assert {kinds[name] for name in kinds if name.startswith("cut")} == {"split"}
    assert np.max(found.gain) > 0


def test_a_plan_is_kept_as_a_run(tmp_path: Path) -> None:
    made = split()
    found = plan.mapped(made, energy.radios()["wifi"], "a net")
    told = plan.result(made, "thin", "net", "a net, thin", ["made up"], [found])
    assert told.headline == f"a net, thin: {made.verdict.why}"
    names = [row.name for row in told.rows]
    assert names[:3] == [DEVICE, RAW, COMPRESSED]
    assert set(found.plans) <= set(names)
    assert len(names) <= plan.ROWS
    at = made.options.label.index(made.verdict.label)
    (row,) = [row for row in told.rows if row.name == made.verdict.label]
    assert row.values["mean_seconds"] == made.costs.seconds[at]
    assert row.values["joules"] == pytest.approx(1000 * made.costs.joules[at])
    page = plan.kept(tmp_path / "thin", told, {"network": "thin"})
    assert "Where to cut" in page.read_text(encoding="utf-8")
    assert Result.load(tmp_path / "thin" / "result.json") == told
    plan.kept(tmp_path / "thin", told, {"network": "thin"})  # again, instead
    (tmp_path / "thin" / "config.json").write_text('{"program": "closed-loop"}')
    with pytest.raises(ConfigError, match="holds a run that is no plan"):
        plan.kept(tmp_path / "thin", told, {})


def test_a_floor_keeps_the_input_on_the_device() -> None:
    found = planned(plan.Input(10.0, 10.0, "made up"), 100.0, first_cut=3)
    assert all(int(cut) >= 3 for cut, sends in zip(found.options.cut, found.options.sends, strict=True) if sends)
    assert found.options.label[0] == DEVICE


def test_what_an_input_is_like() -> None:
    Image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16))
    pixels[0, 0, 0, :2] = 0, 255
    sizes = []
    for row in pixels:
        file = io.BytesIO()
        Image.fromarray(np.moveaxis(row, 0, -1).astype(np.uint8)).save(file, "JPEG", quality=75)
        sizes.append(len(file.getvalue()))
    found = plan.input_of(NET, (pixels / 51 - 2).astype(np.float32), real=True)
    assert (found.raw_bytes, found.compressed_bytes) == (768, np.mean(sizes))
    assert plan.input_of(NET, X, real=False).compressed_bytes == pytest.approx(256 * 2.4 / 8)
    sound = plan.input_of(Speech((80, 1000), 5), np.zeros((1, 80, 1000), np.float32), real=True)
    assert (sound.raw_bytes, sound.compressed_bytes) == (320_000, 30_000)
    tokens = plan.input_of(None, np.zeros((2, 64), np.int64), real=True)
    assert tokens.raw_bytes == 128
    assert tokens.compressed_bytes <= 128
