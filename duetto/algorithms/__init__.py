"""Learning together: one paper, one file, both sides of it."""

from duetto.algorithms.fedavg import fedavg

__all__ = ["fedavg"]
