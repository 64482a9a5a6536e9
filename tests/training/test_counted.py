"""What is computed, counted by torch, against products counted by hand."""

import numpy as np

from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy
from duetto.training.counted import counting
from duetto.types import Local, Rows


def test_a_step_is_three_products_a_layer_but_the_first() -> None:
    """Forward, and back to weights and to inputs; nobody asks for the slope of the inputs of the first layer."""
    net, rows, epochs = Mlp((3,), 2, (4,)), 5, 2
    client = Client(net, (CrossEntropy(),), SGD(0.1), epochs, 2)
    data = Rows(np.ones((rows, 3), np.float32), np.zeros(rows, np.int64))
    with counting() as flops:
        assert flops() == 0
        net.logits(net.init(0), data.x)
        forward = flops()
        client(Local(data), {"params": net.init(0)}, (0,), "cloud")
        trained = flops() - forward
    first, second = 2 * 3 * 4, 2 * 4 * 2
    assert forward == rows * (first + second) == net.work(rows).flops
    assert trained == epochs * rows * (2 * first + 3 * second)
