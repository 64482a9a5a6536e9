"""The floor: one client after the other in a plain PyTorch loop."""

from __future__ import annotations

import nets
import stopwatch
import torch
import workloads
from torch.nn.functional import cross_entropy


def main() -> None:
    """Train."""
    parser = stopwatch.arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    given = workloads.load(args.folder)
    batch, lr = given.workload.batch, given.workload.lr
    net = nets.begun(given.name, given.init)
    leaves = list(net.parameters())
    optimiser = torch.optim.SGD(leaves, lr, foreach=True)
    watch = stopwatch.Stopwatch(args.out, given.rounds)
    watch.ready()
    for step, cohort in enumerate(given.cohorts):
        start = [leaf.detach().clone() for leaf in leaves]
        total = [torch.zeros_like(leaf) for leaf in start]
        for position in range(len(cohort)):
            x, y = (torch.from_numpy(part) for part in given.client(step, position))
            for rows, labels in zip(x.split(batch), y.split(batch), strict=True):
                optimiser.zero_grad()
                cross_entropy(net(rows), labels).backward()
                optimiser.step()
            with torch.no_grad():
                torch._foreach_add_(total, torch._foreach_sub(leaves, start), alpha=len(y))
                torch._foreach_copy_(leaves, start)
        with torch.no_grad():
            torch._foreach_add_(leaves, total, alpha=1 / int(given.sizes[cohort].sum()))
        watch.lap(lambda: nets.weights(net))


if __name__ == "__main__":
    main()
