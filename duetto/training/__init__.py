"""Local training: what a client declares, and the executors that do it."""

from duetto.training.adabn import AdaBn
from duetto.training.align import Align
from duetto.training.augment import Affine, Crop
from duetto.training.auto import Auto
from duetto.training.bridge import Bridged, Heard
from duetto.training.client import Client
from duetto.training.cohort import Cohort
from duetto.training.contrast import Contrast
from duetto.training.ewc import Elastic, Ewc
from duetto.training.extractor import Extractor
from duetto.training.gem import Gem
from duetto.training.joint import EveryExit, SelfDistil
from duetto.training.lifelong import Lifelong, Within
from duetto.training.losses import CrossEntropy, Distil, Drift, Proximal
from duetto.training.lwf import Kept, Lwf
from duetto.training.optimisers import SGD, Adam
from duetto.training.processes import Processes
from duetto.training.pseudo import PseudoLabels
from duetto.training.rate import Imitate, Rated
from duetto.training.replay import Replay
from duetto.training.sandwich import Sandwich
from duetto.training.sequential import Sequential
from duetto.training.steps import Partly, batches, gradient, moved
from duetto.training.tune import Tune
from duetto.training.vertical import Bottom, Top
from duetto.training.views import BatchNorm, Body, Full, Head, Masked, last_layer

__all__ = [
    "AdaBn",
    "Adam",
    "Affine",
    "Align",
    "Auto",
    "BatchNorm",
    "Body",
    "Bottom",
    "Bridged",
    "Client",
    "Cohort",
    "Contrast",
    "Crop",
    "CrossEntropy",
    "Distil",
    "Drift",
    "Elastic",
    "EveryExit",
    "Ewc",
    "Extractor",
    "Full",
    "Gem",
    "Head",
    "Heard",
    "Imitate",
    "Kept",
    "Lifelong",
    "Lwf",
    "Masked",
    "Partly",
    "Processes",
    "Proximal",
    "PseudoLabels",
    "Rated",
    "Replay",
    "SGD",
    "Sandwich",
    "SelfDistil",
    "Sequential",
    "Top",
    "Tune",
    "Within",
    "batches",
    "gradient",
    "last_layer",
    "moved",
]
