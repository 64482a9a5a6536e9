"""Whatever decides: answer or ask, by a threshold, a calibration, a budget or availability; and who is in a cohort."""

from duetto.policies.availability import MODES, OnlyInCloud, OnlyOnDevice, PreferInCloud, PreferOnDevice
from duetto.policies.budgeted import Budgeted
from duetto.policies.calibrated import Calibrated
from duetto.policies.capped import Capped
from duetto.policies.cohorts import BySize, Everyone, Poisson, Uniform
from duetto.policies.deadline import Deadline
from duetto.policies.dual import Dual
from duetto.policies.epsilon_greedy import EpsilonGreedy
from duetto.policies.least_available import LeastAvailable
from duetto.policies.linucb import LinUCB
from duetto.policies.oort import Oort
from duetto.policies.over_selected import OverSelected
from duetto.policies.power_of_choice import PowerOfChoice
from duetto.policies.scores import SCORES, Scored, confidence
from duetto.policies.thompson import Thompson
from duetto.policies.threshold import Threshold

__all__ = [
    "Budgeted",
    "BySize",
    "Calibrated",
    "Capped",
    "Deadline",
    "Dual",
    "EpsilonGreedy",
    "Everyone",
    "LeastAvailable",
    "LinUCB",
    "MODES",
    "OnlyInCloud",
    "OnlyOnDevice",
    "Oort",
    "OverSelected",
    "Poisson",
    "PowerOfChoice",
    "PreferInCloud",
    "PreferOnDevice",
    "SCORES",
    "Scored",
    "Thompson",
    "Threshold",
    "Uniform",
    "confidence",
]
