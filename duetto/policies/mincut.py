"""The best cut of any graph of stages, as a minimum cut (DADS: Hu, Bao, Wang, Liu, INFOCOM 2019).

A prefix of a topological order is not enough where branches run side by side. Every stage pays its seconds where it
runs; a value that the device has and the cloud reads pays for its bytes once, however many stages read it, which is
what a node of its own behind every value is for. A stage on the device needs all that it reads there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from duetto.errors import DataError
from duetto.tree import Array

_SCALE = 1 << 29  # scipy's flows are 32-bit integers; seconds are rounded to the total over this
_NEVER = (1 << 31) - 1


@dataclass(frozen=True)
class Best:
    """The best cut: the stages of the device by name, and the seconds of an answer."""

    cut: frozenset[str]
    seconds: float


def best_cut(
    names: Sequence[str],
    reads: Sequence[Sequence[str]],
    nbytes: Sequence[float],
    device_seconds: Array,
    cloud_seconds: Array,
    input_bytes: Mapping[str, float],
    *,
    up_mbps: float,
    rtt_seconds: float = 0.0,
    down_seconds: float = 0.0,
) -> Best:
    """The down-closed set of stages that the device should compute over a link of this bandwidth.

    Args:
        names: of the stages, in topological order.
        reads: of every stage the names of stages and inputs that it reads.
        nbytes: ``[stages]`` of every stage's value as it would cross.
        device_seconds, cloud_seconds: ``[stages]``.
        input_bytes: of every input as it would cross.
        up_mbps: Mbit/s to the cloud, above 0.
        rtt_seconds, down_seconds: paid once where the cloud computes anything; the last stage is the answer.

    Raises:
        DataError: columns of different lengths, a name that nobody computes before it is read, or numbers out of range.
    """
    here, there, size = (np.asarray(each, np.float64) for each in (device_seconds, cloud_seconds, nbytes))
    count = len(names)
    if not count == len(reads) == len(here) == len(there) == len(size) or not count:
        raise DataError("columns of different lengths, or no stages", "give one number a stage")
    sizes = np.concatenate([size, np.asarray([*input_bytes.values()], np.float64)])
    if not (np.isfinite([*here, *there, *sizes]).all() and min(*here, *there, *sizes) >= 0 and up_mbps > 0):
        raise DataError("seconds or bytes that are negative or not finite, or no bandwidth", "give numbers from 0")
    at = {name: count + i for i, name in enumerate(input_bytes)}
    for i, name in enumerate(names):
        if missing := [each for each in reads[i] if each not in at]:
            raise DataError(f"{name} reads {missing[0]}, which nothing before it computes", "order the stages")
        at[name] = i
    sending = sizes * 8e-6 / up_mbps
    device = _cut(reads, at, here, there, sending)
    alone = float(here.sum())
    if device.all():
        return Best(frozenset(names), alone)
    crossing = {at[name] for i in np.flatnonzero(~device).tolist() for name in reads[i]}
    sent = sum(sending[v] for v in crossing if v >= count or device[v])
    seconds = float(here[device].sum() + there[~device].sum() + sent + rtt_seconds + down_seconds)
    if alone <= seconds:
        return Best(frozenset(names), alone)
    return Best(frozenset(name for i, name in enumerate(names) if device[i]), seconds)


def _cut(
    reads: Sequence[Sequence[str]], at: Mapping[str, int], here: np.ndarray, there: np.ndarray, sending: np.ndarray
) -> np.ndarray:
    """Which stages the device computes, ``[stages]`` bool, where the cloud computes the last one or all are equal."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    count, values = len(here), len(sending)
    source, sink = 2 * values, 2 * values + 1  # a value's own node is behind it by `values`
    edges: dict[tuple[int, int], float] = {}
    for i in range(count):
        edges[source, i], edges[i, sink] = there[i], here[i]
        for name in reads[i]:
            edges[values + at[name], i] = np.inf
            if at[name] < count:
                edges[i, at[name]] = np.inf
    for v in range(values):
        edges[v, values + v] = sending[v]
        if v >= count:
            edges[source, v] = np.inf
    # The answer comes from the cloud here; that the device computes everything is compared apart, as it sends nothing.
    finite = np.array([cost for cost in edges.values() if np.isfinite(cost)])
    unit = _SCALE / max(float(finite.sum()), 1e-12)
    capacity = [round(cost * unit) if np.isfinite(cost) else _NEVER for cost in edges.values()]
    rows, columns = np.array(list(edges), np.int32).T
    shape = (2 * values + 2, 2 * values + 2)
    graph = csr_array((np.array(capacity, np.int32), (rows, columns)), shape=shape)
    flow = maximum_flow(graph, source, sink).flow
    residual = graph.astype(np.int64) - flow.astype(np.int64)
    residual.data[residual.data < 0] = 0
    residual.eliminate_zeros()
    reached = breadth_first_order(csr_array(residual), source, return_predecessors=False)
    device = np.zeros(count, bool)
    device[reached[reached < count]] = True
    return device
