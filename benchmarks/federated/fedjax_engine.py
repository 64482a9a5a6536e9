"""fedjax: its federated_averaging with its jit backend, on all cores.

Batches are fedjax's own padded ones, whose mask its gradient reads: exact, and one shape to compile. Its shuffled
batches would fill the last one of a client with rows from its beginning, so that it would take other steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax

jax.tree_map = jax.tree_util.tree_map  # fedjax 0.0.17 is older than its removal

import fedjax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import stopwatch  # noqa: E402
import workloads  # noqa: E402
from fedjax.algorithms import fed_avg  # noqa: E402
from jax import lax  # noqa: E402
from workloads import Weights  # noqa: E402

Params = dict[str, jax.Array]


class Ordered(fedjax.ClientDataset):
    """A client whose rows are already in the order of training."""

    def shuffle_repeat_batch(
        self, hparams: fedjax.ShuffleRepeatBatchHParams | None = None, **kwargs: int
    ) -> Iterable[dict[str, np.ndarray]]:
        """One epoch, as it lies."""
        return self.padded_batch(batch_size=hparams.batch_size)


def _dense(params: Params, layer: str, x: jax.Array) -> jax.Array:
    return x @ params[f"{layer}.weight"] + params[f"{layer}.bias"]


def _convolution(params: Params, layer: str, x: jax.Array) -> jax.Array:
    """Convolution, ReLU and 2x2 pooling; rows, height, width, channels."""
    layout = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, params[f"{layer}.weight"], (1, 1), "SAME", dimension_numbers=layout)
    x = jax.nn.relu(x + params[f"{layer}.bias"])
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _images(params: Params, x: jax.Array) -> jax.Array:
    x = _convolution(params, "conv2", _convolution(params, "conv1", x))
    return _dense(params, "fc2", jax.nn.relu(_dense(params, "fc1", x.reshape(len(x), -1))))


def _characters(params: Params, x: jax.Array) -> jax.Array:
    steps = jnp.swapaxes(params["embed.weight"][x], 0, 1)  # [80, n, 8]
    inputs = steps @ params["lstm.weight_ih_l0"] + params["lstm.bias_ih_l0"] + params["lstm.bias_hh_l0"]

    def step(state: tuple[jax.Array, jax.Array], now: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        hidden, cell = state
        enter, forget, new, leave = jnp.split(now + hidden @ params["lstm.weight_hh_l0"], 4, axis=1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return (jax.nn.sigmoid(leave) * jnp.tanh(cell), cell), None

    nothing = jnp.zeros((len(x), 128), jnp.float32)
    (hidden, _), _ = lax.scan(step, (nothing, nothing), inputs)
    return _dense(params, "fc", hidden)


def _one_hidden(params: Params, x: jax.Array) -> jax.Array:
    return _dense(params, "fc2", jax.nn.relu(_dense(params, "fc1", x)))


def _logistic(params: Params, x: jax.Array) -> jax.Array:
    return _dense(params, "fc", x.reshape(len(x), -1))


LOGITS: dict[str, Callable[[Params, jax.Array], jax.Array]] = {
    "W1": _images,
    "W3": _characters,
    "W4": _logistic,
}


def _there(weights: Weights) -> Params:
    """From torch's layout to that of jax: inputs first, channels last."""
    params = {}
    for leaf, array in weights.items():
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.shape == (512, 3136):  # what comes flattened out of the last convolution
            array = array.reshape(512, 64, 7, 7).transpose(2, 3, 1, 0).reshape(3136, 512)
        elif array.ndim == 2 and not leaf.startswith("embed"):
            array = array.T
        params[leaf] = jnp.asarray(array)
    return params


def _back(params: Params) -> Weights:
    weights = {}
    for leaf, array in params.items():
        array = np.asarray(array)
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.shape == (3136, 512):
            array = array.reshape(7, 7, 64, 512).transpose(3, 2, 0, 1).reshape(512, 3136)
        elif array.ndim == 2 and not leaf.startswith("embed"):
            array = array.T
        weights[leaf] = array
    return weights


def main() -> None:
    """Train."""
    args = stopwatch.arguments(__doc__).parse_args()
    given = workloads.load(args.folder)
    logits = LOGITS.get(given.name, _one_hidden)

    def loss(params: Params, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        chosen = jax.nn.log_softmax(logits(params, batch["x"]))
        return -jnp.take_along_axis(chosen, batch["y"][:, None], axis=1)[:, 0]

    algorithm = fed_avg.federated_averaging(
        fedjax.grad(loss),
        fedjax.optimizers.sgd(given.workload.lr),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=given.workload.batch),
    )
    state = algorithm.init(_there(given.init))
    key = jax.random.PRNGKey(workloads.SEED)  # nothing here draws
    watch = stopwatch.Stopwatch(args.out, given.rounds)
    watch.ready()
    for step, cohort in enumerate(given.cohorts):
        clients = []
        for position, user in enumerate(cohort):
            x, y = given.client(step, position)
            x = x.transpose(0, 2, 3, 1) if given.name == "W1" else x
            clients.append((int(user), Ordered({"x": x, "y": y}), key))
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        watch.lap(lambda params=state.params: _back(params))


if __name__ == "__main__":
    main()
