"""Local training: what a client declares, and the executors that do it."""

from duetto.training.augment import Affine, Crop
from duetto.training.auto import Auto
from duetto.training.client import Client
from duetto.training.cohort import Cohort
from duetto.training.joint import EveryExit, SelfDistil
from duetto.training.losses import CrossEntropy, Distil, Drift, Proximal
from duetto.training.optimisers import SGD, Adam
from duetto.training.processes import Processes
from duetto.training.rate import Imitate, Rated
from duetto.training.sequential import Sequential
from duetto.training.tune import Tune

__all__ = [
    "Adam",
    "Affine",
    "Auto",
    "Client",
    "Cohort",
    "Crop",
    "CrossEntropy",
    "Distil",
    "Drift",
    "EveryExit",
    "Imitate",
    "Processes",
    "Proximal",
    "Rated",
    "SGD",
    "SelfDistil",
    "Sequential",
    "Tune",
]
