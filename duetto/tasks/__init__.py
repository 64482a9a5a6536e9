"""Data sets by user, and small/large pairs of models for them."""

from duetto.tasks.by_user import ByUser
from duetto.tasks.pair import Pair, trained
from duetto.tasks.partition import Dirichlet, FeatureShift, Natural, Quantity, Shards
from duetto.tasks.task import Task, load

__all__ = [
    "ByUser",
    "Dirichlet",
    "FeatureShift",
    "Natural",
    "Pair",
    "Quantity",
    "Shards",
    "Task",
    "load",
    "trained",
]
