"""Small random deformations of images, as a pure function of the batch and a key."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Affine:
    """A random affine map an image (Simard, Steinkraus, Platt 2003), bilinear, zeros outside.

    Attributes:
        degrees: largest rotation either way.
        scale: largest |log| of the scale in each direction.
        shear: largest shear either way.
        shift: largest translation either way, as a share of the image.
        stroke: share of images whose strokes are made thicker or thinner (grey dilation, erosion), by a random amount.
    """

    degrees: float = 15.0
    scale: float = 0.15
    shear: float = 0.3
    shift: float = 0.07
    stroke: float = 0.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """``x [n, channels, height, width]`` to the same shape."""
        n = len(x)

        def uniform(width: float) -> Tensor:
            return (torch.rand(n, generator=generator) * 2 - 1) * width

        angle, shear = uniform(math.radians(self.degrees)), uniform(self.shear)
        wide, high = torch.exp(uniform(self.scale)), torch.exp(uniform(self.scale))
        across, down = uniform(2 * self.shift), uniform(2 * self.shift)  # an image is 2 wide to affine_grid
        cos, sin = torch.cos(angle), torch.sin(angle)
        top = torch.stack([cos * wide, (cos * shear - sin) * high, across], 1)
        bottom = torch.stack([sin * wide, (sin * shear + cos) * high, down], 1)
        grid = functional.affine_grid(torch.stack([top, bottom], 1), list(x.shape), align_corners=False).to(x.dtype)
        moved = functional.grid_sample(x, grid, align_corners=False, padding_mode="zeros")
        return self._stroke(moved, generator) if self.stroke else moved

    def _stroke(self, x: Tensor, generator: torch.Generator) -> Tensor:
        draw = torch.rand(len(x), generator=generator)
        amount = torch.rand(len(x), generator=generator).view(-1, 1, 1, 1)
        thick = functional.max_pool2d(x, 3, 1, 1)
        thin = -functional.max_pool2d(-x, 3, 1, 1)
        pick = draw.view(-1, 1, 1, 1)
        target = torch.where(pick < self.stroke / 2, thick, torch.where(pick > 1 - self.stroke / 2, thin, x))
        return x + amount * (target - x)


@dataclass(frozen=True)
class Crop:
    """A crop of the image's own size at a random place of the padded image, half of them mirrored.

    The usual augmentation of CIFAR-10 (He, Zhang, Ren & Sun, *Deep Residual Learning for Image Recognition*, 2016).

    Attributes:
        pixels: zeros added on every side, so the largest shift either way.
        mirror: whether left and right are exchanged in half of the images.
    """

    pixels: int = 4
    mirror: bool = True

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """``x [n, channels, height, width]`` to the same shape."""
        n, channels, height, width = x.shape
        top, left = torch.randint(0, 2 * self.pixels + 1, (2, n, 1), generator=generator)
        down, across = top + torch.arange(height), left + torch.arange(width)
        if self.mirror:
            across = torch.where(torch.rand((n, 1), generator=generator) < 0.5, across.flip(1), across)
        padded = functional.pad(x, (self.pixels,) * 4)
        image, channel = torch.arange(n).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
        return padded[image, channel, down.view(n, 1, -1, 1), across.view(n, 1, 1, -1)]
