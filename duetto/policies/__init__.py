"""Whatever decides: answer or ask, by a threshold, calibration, budget, text or availability; who is in a cohort."""

from duetto.policies.availability import MODES, OnlyInCloud, OnlyOnDevice, PreferInCloud, PreferOnDevice
from duetto.policies.budgeted import Budgeted
from duetto.policies.calibrated import Calibrated
from duetto.policies.cohorts import BySize, Everyone, Poisson, Uniform
from duetto.policies.deadline import Deadline
from duetto.policies.embeddings import OnnxEmbedding, SentenceEmbedding
from duetto.policies.least_available import LeastAvailable
from duetto.policies.oort import Oort
from duetto.policies.over_selected import OverSelected
from duetto.policies.power_of_choice import PowerOfChoice
from duetto.policies.router import Decision, Router
from duetto.policies.scores import SCORES, Scored, confidence
from duetto.policies.text_gain import TextGain
from duetto.policies.threshold import Threshold

__all__ = [
    "Budgeted",
    "BySize",
    "Calibrated",
    "Deadline",
    "Decision",
    "Everyone",
    "LeastAvailable",
    "MODES",
    "OnlyInCloud",
    "OnlyOnDevice",
    "OnnxEmbedding",
    "Oort",
    "OverSelected",
    "Poisson",
    "PowerOfChoice",
    "PreferInCloud",
    "PreferOnDevice",
    "Router",
    "SCORES",
    "Scored",
    "SentenceEmbedding",
    "TextGain",
    "Threshold",
    "Uniform",
    "confidence",
]
