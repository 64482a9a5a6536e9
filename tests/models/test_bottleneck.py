"""A learned bottleneck: two sides that are the whole, a prior that is what codes cost, and what can be trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Residual, Text, Vit, stage
from duetto.models.bottleneck import FLOOR, Bottlenecked, Heading, fitting_cuts
from duetto.models.net import built, shared, to_tensors

BACKBONE = Residual((3, 16, 16), 4, (8, 16), 1)
CUT = max(cut for cut, shape in fitting_cuts(BACKBONE).items() if shape == (8, 16, 16))
NET = Bottlenecked(BACKBONE, CUT, channels=3, downsampling=4, bits=2, width=8)
PARAMS = NET.init(0)
X = np.random.default_rng(0).normal(size=(6, 3, 16, 16)).astype(np.float32)
VIT = Vit((3, 16, 16), 4, 4, 16, 1, 2)
TEXT = Text((8,), 3, 20, 16, 1, 2)


def test_the_two_sides_are_the_whole() -> None:
    codes = NET.encode(PARAMS, X)
    assert codes.dtype == np.uint8
    assert codes.shape == (6, *NET.code) == (6, 3, 4, 4)
    assert codes.max() < NET.levels == 4
    np.testing.assert_array_equal(NET.decode(PARAMS, codes), NET.logits(PARAMS, X))
    assert np.ptp(NET.logits(PARAMS, X)) > 0


def test_a_side_needs_its_own_parameters_only() -> None:
    codes = NET.encode({"encoder": PARAMS["encoder"]}, X)
    cloud = {name: PARAMS[name] for name in ("decoder", "rest")}
    np.testing.assert_array_equal(NET.decode(cloud, codes), NET.logits(PARAMS, X))
    sides = NET.device.parameters + NET.cloud.parameters
    assert sides + sum(leaf.size for _, leaf in trees.leaves(PARAMS["prior"])) == NET.parameters
    assert NET.device.work(1).flops + NET.cloud.work(1).flops == NET.work(1).flops > NET.device.work(1).flops > 0


def test_rows_do_not_mix() -> None:
    np.testing.assert_array_equal(NET.encode(PARAMS, X)[2:3], NET.encode(PARAMS, X[2:3]))


def test_the_rest_is_the_backbone_s() -> None:
    """Given the very frontier, the rest of the whole says what the backbone says."""
    params = BACKBONE.init(3)
    around = NET.around(params, 0)
    frontier = NET.restoring.targets(params, X).reshape(6, *NET.frontier)
    module = built(NET).eval()
    module.load_state_dict(to_tensors(around))
    with torch.inference_mode():
        said = module.rest(torch.from_numpy(frontier)).numpy()  # type: ignore[operator, union-attr]
    np.testing.assert_allclose(said, BACKBONE.logits(params, X), rtol=1e-4, atol=1e-5)
    learned = dict(module.rest.named_parameters())  # type: ignore[union-attr]
    assert sum(p.numel() for p in learned.values()) > 0, "the rest can learn"
    other = NET.around(params, 1)
    assert trees.encode(other["rest"]) == trees.encode(around["rest"])
    assert trees.encode(other["encoder"]) != trees.encode(around["encoder"])


def test_a_bottleneck_fits_where_one_tensor_crosses() -> None:
    staged = stage(BACKBONE.module(), torch.zeros((2, 3, 16, 16)), proof="stages")
    crossing = {cut: [leaf.shape for leaf in staged.frontier(cut).values()] for cut in range(1, len(staged))}
    lone = {cut: shapes[0][1:] for cut, shapes in crossing.items() if len(shapes) == 1 and len(shapes[0]) > 2}
    assert fitting_cuts(BACKBONE) == lone
    assert len(lone) < len(crossing), "some cuts are crossed by two"


def test_targets_are_what_the_backbone_has_at_the_cut() -> None:
    params = BACKBONE.init(3)
    module = BACKBONE.module()
    module.load_state_dict(to_tensors(params))
    (crossing,) = stage(module, torch.from_numpy(X))[:CUT]({"x": X}).values()
    np.testing.assert_allclose(NET.restoring.targets(params, X), crossing.reshape(6, -1), rtol=1e-4, atol=1e-5)


def test_a_prior_is_a_mixture_of_logistics_cut_off_at_both_ends() -> None:
    draw = np.random.default_rng(1)
    means, scales, weights = draw.normal(1.5, 1, (3, 3)), draw.uniform(0.3, 1, (3, 3)), draw.dirichlet(np.ones(3), 3)
    prior = {"means": means, "log_scales": np.log(scales), "log_weights": np.log(weights)}
    table = NET.prior({**PARAMS, "prior": prior})
    below = 1 / (1 + np.exp(-(np.arange(-0.5, 4)[:, None, None] - means) / scales))  # edges, channels, logistics
    share = (weights * (below[1:] - below[:-1]) / (below[-1] - below[0])).sum(-1).T
    np.testing.assert_allclose(table, (1 - FLOOR) * share + FLOOR / 4, rtol=1e-9)
    np.testing.assert_allclose(table.sum(1), 1, rtol=1e-12)


def test_in_training_the_last_column_is_what_a_noisy_code_costs() -> None:
    """Codes at the middle of steps that the prior takes for equal cost two bits each, whatever the noise."""
    flat = {"means": 1.5 * np.ones((3, 3)), "log_scales": 9 * np.ones((3, 3)), "log_weights": np.zeros((3, 3))}
    params = {**PARAMS, "prior": {name: leaf.astype(np.float32) for name, leaf in flat.items()}}
    module = built(NET).train()
    module.load_state_dict(to_tensors(params))
    told = module(torch.from_numpy(X))
    assert told.shape == (6, NET.classes + 1)
    np.testing.assert_allclose(told[:, -1].detach(), 2 * 3 * 4 * 4, rtol=1e-2)
    np.testing.assert_allclose(told[:, :-1].detach(), NET.logits(params, X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(NET.prior(params), 1 / 4, rtol=1e-2)
    told.sum().backward()
    assert all(p.grad is not None for p in module.parameters()), "rounding lets gradients pass"
    assert all(p.grad.abs().sum() > 0 for p in module.encoder.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("head", ["student", "kept"])
@pytest.mark.parametrize("form", ["image", "tokens"])
def test_both_heads_at_both_kinds_of_frontier(head: str, form: str) -> None:
    if form == "image":
        net, code = replace(NET, head=head, downsampling=2), (3, 8, 8)
    else:
        cut = next(cut for cut, shape in fitting_cuts(VIT).items() if shape == (17, 16))
        down = 4 if head == "student" else 1
        net = Bottlenecked(VIT, cut, 3, down, 2, 8, head=head)  # type: ignore[arg-type]
        code = (3, 4, 4) if head == "student" else (3, 17)
    params = net.init(0)
    codes = net.encode(params, X)
    assert codes.shape == (6, *code) == (6, *net.code)
    np.testing.assert_array_equal(net.decode(params, codes), net.logits(params, X))
    if head == "kept":
        wanted = Heading(net.backbone, net.cut).work(1).flops
        assert net.device.work(1).flops > wanted, "a kept head computes the stages before the cut"


def test_text_has_no_student_but_can_keep_its_head() -> None:
    cut = next(cut for cut, shape in fitting_cuts(TEXT).items() if shape == (8, 16))
    with pytest.raises(ConfigError, match="kept"):
        Bottlenecked(TEXT, cut)
    net = Bottlenecked(TEXT, cut, 2, 2, 4, 8, head="kept")
    params, x = net.init(0), np.arange(16).reshape(2, 8) % 20
    assert net.encode(params, x).shape == (2, 2, 4)
    np.testing.assert_array_equal(net.decode(params, net.encode(params, x)), net.logits(params, x))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"bits": 9}, "9 bits"),
        ({"channels": 0}, "0 channels"),
        ({"downsampling": 3}, "downsampling of 3"),
        ({"downsampling": 32}, "divided by 32"),
        ({"downsampling": 1, "cut": max(fitting_cuts(BACKBONE))}, "positions"),
        ({"cut": CUT - 3}, f"do after .*{CUT}"),
        ({"cut": 0}, "after stage 0"),
        ({"head": "own"}, "'own'"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        replace(NET, **change)  # type: ignore[arg-type]


def test_what_the_cloud_is_sent_is_checked() -> None:
    codes = NET.encode(PARAMS, X)
    for wrong in (codes[:, :2], codes.astype(np.int64), codes + 4):
        with pytest.raises(DataError, match="code"):
            NET.decode(PARAMS, wrong)
    assert NET.decode(PARAMS, codes[:0]).shape == (0, 4)


def test_parameters_of_another_backbone_are_refused() -> None:
    other = Residual((3, 16, 16), 5, (16, 8), 1).init(0)
    for use in (lambda: NET.around(other, 0), lambda: NET.restoring.targets(other, X), lambda: NET.logits(other, X)):
        with pytest.raises(ConfigError, match="not those of"):
            use()


def test_bottlenecks_are_values() -> None:
    again = Bottlenecked(Residual((3, 16, 16), 4, (8, 16), 1), CUT, 3, 4, 2, 8)
    assert again == NET
    assert shared(again) is shared(NET)
    assert trees.encode(NET.init(0)) == trees.encode(PARAMS) != trees.encode(NET.init(1))


@pytest.mark.slow
def test_the_device_s_side_becomes_a_file(tmp_path: Path) -> None:
    """What answers without torch gives the same codes, but for ties of rounding."""
    runtime = pytest.importorskip("onnxruntime")
    from duetto.models import export

    path = export.onnx(NET.device, {"encoder": PARAMS["encoder"]}, tmp_path / "encoder.onnx")
    (codes,) = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": X})
    assert (codes == NET.encode(PARAMS, X)).mean() > 0.99
