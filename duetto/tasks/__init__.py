"""Data sets by user, and small/large pairs of models for them."""

from duetto.tasks.by_user import ByUser
from duetto.tasks.pair import Pair, trained
from duetto.tasks.task import Task, load

__all__ = ["ByUser", "Pair", "Task", "load", "trained"]
