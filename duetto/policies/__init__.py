"""Whatever decides: answer or ask, by a threshold, a calibration, a budget or availability; and who is in a cohort."""

from duetto.policies.availability import MODES, OnlyInCloud, OnlyOnDevice, PreferInCloud, PreferOnDevice
from duetto.policies.budgeted import Budgeted
from duetto.policies.calibrated import Calibrated
from duetto.policies.cascade import LearnedCascade
from duetto.policies.cohorts import BySize, Everyone, Poisson, Uniform
from duetto.policies.deadline import Deadline
from duetto.policies.ensemble import Ensemble
from duetto.policies.gain import LearnedGain
from duetto.policies.heads import Boosted, Head, Logistic, Neighbours, Network
from duetto.policies.least_available import LeastAvailable
from duetto.policies.oort import Oort
from duetto.policies.opinions import OPINIONS
from duetto.policies.over_selected import OverSelected
from duetto.policies.power_of_choice import PowerOfChoice
from duetto.policies.retrieval import Retrieval
from duetto.policies.scores import SCORES, Scored, confidence
from duetto.policies.selected import Selected
from duetto.policies.spread import Spread
from duetto.policies.threshold import Threshold
from duetto.policies.tiers import Tier, Tiers

__all__ = [
    "Boosted",
    "Budgeted",
    "BySize",
    "Calibrated",
    "Deadline",
    "Ensemble",
    "Everyone",
    "Head",
    "LearnedCascade",
    "LearnedGain",
    "LeastAvailable",
    "Logistic",
    "MODES",
    "Neighbours",
    "Network",
    "OPINIONS",
    "OnlyInCloud",
    "OnlyOnDevice",
    "Oort",
    "OverSelected",
    "Poisson",
    "PowerOfChoice",
    "PreferInCloud",
    "PreferOnDevice",
    "Retrieval",
    "SCORES",
    "Scored",
    "Selected",
    "Spread",
    "Threshold",
    "Tier",
    "Tiers",
    "Uniform",
    "confidence",
]
