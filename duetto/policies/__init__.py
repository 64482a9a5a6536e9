"""Whatever decides: answer or ask, by a threshold, a calibration, a budget or availability; and who is in a cohort."""

from duetto.policies.availability import MODES, OnlyInCloud, OnlyOnDevice, PreferInCloud, PreferOnDevice
from duetto.policies.budgeted import Budgeted
from duetto.policies.calibrated import Calibrated
from duetto.policies.cohorts import Everyone, Uniform
from duetto.policies.scores import SCORES, confidence
from duetto.policies.threshold import Threshold

__all__ = [
    "Budgeted",
    "Calibrated",
    "Everyone",
    "MODES",
    "OnlyInCloud",
    "OnlyOnDevice",
    "PreferInCloud",
    "PreferOnDevice",
    "SCORES",
    "Threshold",
    "Uniform",
    "confidence",
]
