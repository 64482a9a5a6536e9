"""Whatever decides: answer or ask, by a threshold, a promise, a budget, a bandit or a gain; where to cut; who joins."""

from duetto.policies.audited import Audited
from duetto.policies.availability import MODES, OnlyInCloud, OnlyOnDevice, PreferInCloud, PreferOnDevice
from duetto.policies.budgeted import Budgeted
from duetto.policies.calibrated import Calibrated
from duetto.policies.capped import Capped
from duetto.policies.cascade import LearnedCascade
from duetto.policies.cohorts import BySize, Everyone, Poisson, Uniform
from duetto.policies.consent import Consented
from duetto.policies.cuts import OBJECTIVES, Coding, Options
from duetto.policies.deadline import Deadline
from duetto.policies.drift import DETECTORS, Watched
from duetto.policies.dual import Dual
from duetto.policies.embeddings import OnnxEmbedding, SentenceEmbedding
from duetto.policies.ensemble import Ensemble
from duetto.policies.epsilon_greedy import EpsilonGreedy
from duetto.policies.exits import Anytime, ExitOrCut, Exits
from duetto.policies.forecast import Jumps
from duetto.policies.gain import LearnedGain
from duetto.policies.heads import Boosted, Head, Logistic, Neighbours, Network
from duetto.policies.learned_plan import LearnedPlan
from duetto.policies.least_available import LeastAvailable
from duetto.policies.linucb import LinUCB
from duetto.policies.mincut import best_cut
from duetto.policies.oort import Oort
from duetto.policies.opinions import OPINIONS
from duetto.policies.over_selected import OverSelected
from duetto.policies.planned import Planned
from duetto.policies.power_of_choice import PowerOfChoice
from duetto.policies.promises import PROMISES
from duetto.policies.reinforced import Environment, Reinforced
from duetto.policies.retrieval import Retrieval
from duetto.policies.risk import RiskControlled, promised
from duetto.policies.router import Decision, Router
from duetto.policies.scaling import SCALINGS
from duetto.policies.scores import SCORES, Scored, confidence
from duetto.policies.selected import Selected
from duetto.policies.selection import Balanced, Disagreed, KCentre, LeastSure, RandomSample
from duetto.policies.spread import Spread
from duetto.policies.static import Static
from duetto.policies.text_gain import TextGain
from duetto.policies.thompson import Thompson
from duetto.policies.threshold import Threshold
from duetto.policies.tiers import Tier, Tiers
from duetto.policies.widening import Widening

__all__ = [
    "Anytime",
    "Audited",
    "Balanced",
    "Boosted",
    "Budgeted",
    "BySize",
    "Calibrated",
    "Capped",
    "Coding",
    "Consented",
    "DETECTORS",
    "Deadline",
    "Decision",
    "Disagreed",
    "Dual",
    "Ensemble",
    "Environment",
    "EpsilonGreedy",
    "Everyone",
    "ExitOrCut",
    "Exits",
    "Head",
    "Jumps",
    "KCentre",
    "LearnedCascade",
    "LearnedGain",
    "LearnedPlan",
    "LeastAvailable",
    "LeastSure",
    "LinUCB",
    "Logistic",
    "MODES",
    "Neighbours",
    "Network",
    "OBJECTIVES",
    "OPINIONS",
    "OnlyInCloud",
    "OnlyOnDevice",
    "OnnxEmbedding",
    "Oort",
    "Options",
    "OverSelected",
    "PROMISES",
    "Planned",
    "Poisson",
    "PowerOfChoice",
    "PreferInCloud",
    "PreferOnDevice",
    "RandomSample",
    "Reinforced",
    "Retrieval",
    "RiskControlled",
    "Router",
    "SCALINGS",
    "SCORES",
    "Scored",
    "Selected",
    "SentenceEmbedding",
    "Spread",
    "Static",
    "TextGain",
    "Thompson",
    "Threshold",
    "Tier",
    "Tiers",
    "Uniform",
    "Watched",
    "Widening",
    "best_cut",
    "confidence",
    "promised",
]
