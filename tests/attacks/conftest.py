"""The device's half that is attacked."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.models import Conv, stage
from duetto.models.net import built

sys.path.insert(0, str(Path(__file__).parent))  # images.py, for the tests beside it


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> None:
    """What a test draws does not depend on the tests before it, which differ with the number of workers."""
    if hasattr(request.module, "DRAW"):
        request.module.DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def half() -> Any:
    """The first convolution, ReLU and pooling of a network, untrained."""
    net = Conv((1, 8, 8), 3, (4, 8))
    return stage(built(net).eval(), np.zeros((2, *net.shape), np.float32))[:3]
