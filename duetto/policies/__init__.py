"""Whatever decides: answer or ask, by a threshold, a budget, a bandit or availability; who and what takes part."""

from duetto.policies.availability import MODES, OnlyInCloud, OnlyOnDevice, PreferInCloud, PreferOnDevice
from duetto.policies.budgeted import Budgeted
from duetto.policies.calibrated import Calibrated
from duetto.policies.capped import Capped
from duetto.policies.cohorts import BySize, Everyone, Poisson, Uniform
from duetto.policies.consent import Consented
from duetto.policies.deadline import Deadline
from duetto.policies.dual import Dual
from duetto.policies.epsilon_greedy import EpsilonGreedy
from duetto.policies.least_available import LeastAvailable
from duetto.policies.linucb import LinUCB
from duetto.policies.oort import Oort
from duetto.policies.over_selected import OverSelected
from duetto.policies.power_of_choice import PowerOfChoice
from duetto.policies.reinforced import Environment, Reinforced
from duetto.policies.scores import SCORES, Scored, confidence
from duetto.policies.selection import Balanced, Disagreed, KCentre, LeastSure, RandomSample
from duetto.policies.thompson import Thompson
from duetto.policies.threshold import Threshold

__all__ = [
    "Balanced",
    "Budgeted",
    "BySize",
    "Calibrated",
    "Capped",
    "Consented",
    "Deadline",
    "Disagreed",
    "Dual",
    "Environment",
    "EpsilonGreedy",
    "Everyone",
    "KCentre",
    "LeastAvailable",
    "LeastSure",
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
    "RandomSample",
    "Reinforced",
    "SCORES",
    "Scored",
    "Thompson",
    "Threshold",
    "Uniform",
    "confidence",
]
