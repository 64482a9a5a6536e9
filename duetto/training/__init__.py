"""Local training: what a client declares, and the executors that do it."""

from duetto.training.augment import Affine
from duetto.training.auto import Auto
from duetto.training.client import Client
from duetto.training.cohort import Cohort
from duetto.training.losses import CrossEntropy, Distil, Drift, Proximal
from duetto.training.optimisers import SGD, Adam
from duetto.training.sequential import Sequential
from duetto.training.tune import Tune

__all__ = [
    "SGD",
    "Adam",
    "Affine",
    "Auto",
    "Client",
    "Cohort",
    "CrossEntropy",
    "Distil",
    "Drift",
    "Proximal",
    "Sequential",
    "Tune",
]
