"""Split inference on phones whose link changes: a planner re-decides, and a late question is rescued on the device.

A residual network is staged, what crosses each cut is coded for real, and a planner that knows the link only from its
own transfers, and from a probe where one is worth it, chooses for every input between the device alone, the cloud with
the input, and a cut. Beside it stand the two extremes. Inputs are sensor frames in float32, for which there is no JPEG;
the network is untrained, since time, energy and bytes are what is shown. Run: ``python examples/03_split.py``
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import numpy as np

import duetto as du
from duetto.models import Residual
from duetto.policies import MODES, ExitOrCut, Planned
from duetto.programs import plan
from duetto.protocols import Advance, Echo, Finish, answer, disagreement, probe
from duetto.simulation import energy

PHONE, CLOUD, NEVER = "low-end-phone", "cloud-gpu", 1.1  # no exit is that sure


def main(inputs: int = 8) -> dict[str, dict[str, float]]:
    """Milliseconds, joules and kilobytes an answer, for each way to decide."""
    frames = np.random.default_rng(0).normal(size=(inputs, 3, 160, 160)).astype(np.float32)
    net = du.stage(Residual((3, 160, 160), 10, (64, 128, 256, 512), 2, 7).module(), frames[:1])
    profiles, prices = energy.profiles(), energy.prices()["default"]
    costs = plan.costed(net, {"x": frames}, profiles[PHONE], profiles[CLOUD], names=("int8+zstd",))
    raw = plan.Input(frames[0].nbytes, frames[0].nbytes, "float32")
    ways = plan.ways(costs, raw, profiles[PHONE], profiles[CLOUD], prices)
    planned = Planned().given(ways, energy.radios()["4g"], {"": du.Chain(), "input": du.Chain(), **plan.CODECS})
    splitting = ExitOrCut(planned.part, confidence=NEVER).holding(planned)
    print(f"{len(net)} stages, {len(ways)} ways to answer")

    def lived(policy: du.Held[Any]) -> dict[str, float]:
        """The mean answer of phones that decide so."""
        exits = {stop - 1: Advance(start, stop) for start, stop in pairwise(costs.cuts)}

        async def device(me: du.Peer, cloud: du.Peer) -> AsyncIterator[du.Record]:
            own = policy.fork()
            asking = {"me": me, "exits": exits, "peers": {"cloud": cloud}, "question": Finish(), "policy": own}
            for step, x in enumerate(frames):
                known = du.Seen(traits={"time": np.array([asyncio.get_running_loop().time()])})  # forecasts age
                await probe(cloud, own, key=(0, me.name, "probe", step), known=known, deadline=1.0)
                key = (0, me.name, step)
                given = await answer(x, key=key, known=known, reward=disagreement, deadline=10.0, **asking)
                yield du.Record.of(given, step=step)

        log = du.simulate(
            device=du.Party((device,), (Advance,)),
            cloud=du.Party((), (Echo, Finish), du.Local(None, {"net": net})),
            fleet=du.fleet(PHONE, ["ann", "bob", "eve"], memory={"net": net}),
            network="synthetic",
            seed=0,
        )
        records = [record for record in log.records if record.protocol == "answer"]
        told = np.array([(r.cost.seconds * 1e3, r.cost.joules, r.cost.up_bytes / 1e3) for r in records]).mean(0)
        return dict(zip(("ms", "J", "kB up"), told.tolist(), strict=True)) | {
            "asked": float(np.mean([record.metrics["asked"] for record in records]))
        }

    policies = {
        "device only": du.Held.of(MODES["only_on_device"]),
        "cloud only": du.Held.of(MODES["only_in_cloud"]),
        "planned": splitting,
    }
    found = {name: lived(policy) for name, policy in policies.items()}
    for name, told in found.items():
        print(f"{name:<12}", "  ".join(f"{key} {value:7.3g}" for key, value in told.items()))
    return found


if __name__ == "__main__":
    main()
