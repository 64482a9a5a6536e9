"""Whatever decides: answer or ask, by a threshold, a promise, a budget or availability; and who is in a cohort."""

from duetto.policies.audited import Audited
from duetto.policies.availability import MODES, OnlyInCloud, OnlyOnDevice, PreferInCloud, PreferOnDevice
from duetto.policies.budgeted import Budgeted
from duetto.policies.calibrated import Calibrated
from duetto.policies.cohorts import BySize, Everyone, Poisson, Uniform
from duetto.policies.deadline import Deadline
from duetto.policies.drift import DETECTORS, Watched
from duetto.policies.least_available import LeastAvailable
from duetto.policies.oort import Oort
from duetto.policies.over_selected import OverSelected
from duetto.policies.power_of_choice import PowerOfChoice
from duetto.policies.promises import PROMISES
from duetto.policies.risk import RiskControlled, promised
from duetto.policies.scaling import SCALINGS
from duetto.policies.scores import SCORES, Scored, confidence
from duetto.policies.threshold import Threshold

__all__ = [
    "Audited",
    "Budgeted",
    "BySize",
    "Calibrated",
    "DETECTORS",
    "Deadline",
    "Everyone",
    "LeastAvailable",
    "MODES",
    "OnlyInCloud",
    "OnlyOnDevice",
    "Oort",
    "OverSelected",
    "PROMISES",
    "Poisson",
    "PowerOfChoice",
    "PreferInCloud",
    "PreferOnDevice",
    "RiskControlled",
    "SCALINGS",
    "SCORES",
    "Scored",
    "Threshold",
    "Uniform",
    "Watched",
    "confidence",
    "promised",
]
