"""pfl-research: its FederatedAveraging on its SimulatedBackend; under torchrun, one share of the cohort a process."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from typing import Any

import nets
import numpy as np
import stopwatch
import torch
import workloads
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch.nn.functional import cross_entropy


class Laps(TrainingProcessCallback):
    """Marks the end of a round."""

    def __init__(self, mark: Callable[[], None]) -> None:
        self._mark = mark

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Go on."""
        self._mark()
        return False, Metrics()


def main() -> None:
    """Train."""
    parser = stopwatch.arguments(__doc__)
    parser.add_argument("--bf16", action="store_true", help="pfl's own mixed precision (amp_dtype)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    np.random.seed(workloads.SEED)  # pfl wants the same in every process
    given = workloads.load(args.folder)
    net = nets.begun(given.name, given.init)
    net.loss = lambda x, y: cross_entropy(net(x), y)
    net.metrics = lambda x, y: {}

    def dataset(client: tuple[int, int]) -> PyTorchTensorDataset:
        return PyTorchTensorDataset(
            tuple(torch.from_numpy(part) for part in given.client(*client)), user_id=str(client)
        )

    clients = [(step, position) for step in range(given.rounds) for position in range(given.workload.cohort)]
    sizes = dict(zip(clients, given.sizes[given.cohorts].ravel().tolist(), strict=True))
    training = FederatedDataset(dataset, itertools.cycle(clients).__next__, user_id_to_weight=sizes)
    watch = stopwatch.Stopwatch(args.out, given.rounds)
    first = int(os.environ.get("RANK", "0")) == 0
    model = PyTorchModel(
        net,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
        amp_dtype=torch.bfloat16 if args.bf16 else None,
    )
    watch.ready()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=given.rounds,
            evaluation_frequency=math.nan,  # a round is evaluated where round % frequency == 0: never
            train_cohort_size=given.workload.cohort,
            val_cohort_size=None,
        ),
        SimulatedBackend(training, training, postprocessors=[WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            local_batch_size=given.workload.batch, local_num_epochs=1, local_learning_rate=given.workload.lr
        ),
        callbacks=[Laps(lambda: watch.lap(lambda: nets.weights(net)))] if first else [],
    )


if __name__ == "__main__":
    main()
