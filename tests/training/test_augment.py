"""Small deformations of images."""

import pytest
import torch
from torch import Tensor

from duetto.training import Affine, Crop

STILL = Affine(0.0, 0.0, 0.0, 0.0, 0.0)


def images(n: int = 6, size: int = 8) -> Tensor:
    """Values from 0 to 1, both among them."""
    x = torch.rand((n, 2, size, size), generator=torch.Generator().manual_seed(0))
    x[:, :, 2, 3], x[:, :, 5, 4] = 0.0, 1.0
    return x


def seeded(seed: int) -> torch.Generator:
    """Chance."""
    return torch.Generator().manual_seed(seed)


def test_without_strength_nothing_changes() -> None:
    torch.testing.assert_close(STILL(images(), seeded(1)), images(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("augment", [Affine(), Affine(90.0, 1.0, 1.0, 0.5, 1.0), Affine(stroke=0.7)])
def test_shapes_and_the_range_of_values_stay(augment: Affine) -> None:
    x = images(40)
    moved = augment(x, seeded(2))
    assert (moved.shape, moved.dtype) == (x.shape, x.dtype)
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    assert not torch.allclose(moved, x, atol=0.05)


@pytest.mark.parametrize("augment", [Affine(), Affine(stroke=0.7)])
def test_the_generator_decides_alone(augment: Affine) -> None:
    x, state = images(), torch.get_rng_state()
    once = augment(x, seeded(3))
    assert torch.equal(once, augment(images(), seeded(3)))
    assert not torch.equal(once, augment(x, seeded(4)))
    assert torch.equal(x, images()), "the batch is left as it was"
    assert torch.equal(state, torch.get_rng_state())


def test_every_image_is_deformed_in_its_own_way_and_its_channels_alike() -> None:
    x = images(1)[:, :1].repeat(3, 2, 1, 1)
    moved = Affine()(x, seeded(5))
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert not torch.allclose(moved[0], moved[1], atol=0.01)


@pytest.mark.parametrize(("across", "down"), [(1, 0), (-1, 0), (0, 1), (0, -1), (2, -1)])
def test_a_shift_by_whole_pixels_is_exact(across: int, down: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``rand`` gives (1 + u) / 2 for a shift by u * shift * size pixels; the other strengths are 0."""
    size, reach = 8, 4
    x = images(1, size)
    wanted = iter([0.5, 0.5, 0.5, 0.5, (1 + across / reach) / 2, (1 + down / reach) / 2])
    monkeypatch.setattr(torch, "rand", lambda n, generator: torch.full((n,), next(wanted)))
    moved = Affine(0.0, 0.0, 0.0, reach / size, 0.0)(x, seeded(0))
    expected = torch.zeros_like(x)
    for row in range(size):
        for column in range(size):
            if 0 <= row + down < size and 0 <= column + across < size:
                expected[0, :, row, column] = x[0, :, row + down, column + across]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("draw", "largest"), [(0.0, True), (0.999, False)])
def test_a_stroke_grows_or_shrinks_by_a_pixel(draw: float, largest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full amount a pixel becomes the largest (or smallest) of its neighbourhood."""
    x = images(1)
    wanted = iter([*[0.5] * 6, draw, 1.0])
    monkeypatch.setattr(torch, "rand", lambda n, generator: torch.full((n,), next(wanted)))
    moved = Affine(0.0, 0.0, 0.0, 0.0, 1.0)(x, seeded(0))
    expected = torch.empty_like(x)
    for row in range(8):
        for column in range(8):
            near = x[0, :, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            expected[0, :, row, column] = near.amax((1, 2)) if largest else near.amin((1, 2))
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_the_share_of_changed_strokes_is_the_stroke() -> None:
    x = images(400)
    changed = ((Affine(0.0, 0.0, 0.0, 0.0, 0.3)(x, seeded(6)) - x).abs().amax((1, 2, 3)) > 1e-3).float().mean()
    assert abs(float(changed) - 0.3) < 4 * (0.3 * 0.7 / 400) ** 0.5


def test_a_crop_is_a_place_of_the_padded_image_mirrored_or_not() -> None:
    x = images(300) + 1  # so that no pixel is a zero of the padding
    cropped = Crop(2)(x, seeded(7))
    padded = torch.zeros((300, 2, 12, 12))
    padded[:, :, 2:10, 2:10] = x
    found = []
    for i in range(300):
        places = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if torch.equal(
                padded[i, :, top : top + 8, left : left + 8].flip(2)
                if mirrored
                else padded[i, :, top : top + 8, left : left + 8],
                cropped[i],
            )
        ]
        assert len(places) == 1
        found += places
    assert len({place[:2] for place in found}) == 25, "all places come up in 300"
    assert abs(sum(mirrored for *_, mirrored in found) / 300 - 0.5) < 5 * (0.25 / 300) ** 0.5


def test_a_crop_need_not_move_or_mirror() -> None:
    x = images()
    assert torch.equal(Crop(0, mirror=False)(x, seeded(1)), x)
    moved = Crop(3, mirror=False)(x, seeded(1))
    assert torch.equal(Crop(3, mirror=False)(x, seeded(1)), moved), "the same chance, the same crop"
    assert not torch.equal(Crop(3, mirror=False)(x, seeded(2)), moved)
