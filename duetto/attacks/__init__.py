"""What an attacker does, to test defences against it: clients that poison, and whoever reads what was sent.

Reading: :class:`Inversion` and :class:`Search` (inputs from features), :class:`Hijack` (a malicious cloud in split
learning), :mod:`~duetto.attacks.labels` (labels from slopes), :class:`Matching` (inputs from gradients), and
:mod:`~duetto.attacks.membership` with its :class:`Shadows` (who was trained on).
"""

from duetto.attacks.alie import Alie
from duetto.attacks.gradients import Clip, Matching
from duetto.attacks.hijacking import Hijack, Hijacking
from duetto.attacks.inversion import Inversion, Inverted
from duetto.attacks.membership import Shadows
from duetto.attacks.poisoning import Attack, Boast, Gaussian, LabelFlip, NaN, Poisoned, SignFlip
from duetto.attacks.release import Release, View
from duetto.attacks.search import Search
from duetto.attacks.surrogate import surrogate

__all__ = [
    "Alie",
    "Attack",
    "Boast",
    "Clip",
    "Gaussian",
    "Hijack",
    "Hijacking",
    "Inversion",
    "Inverted",
    "LabelFlip",
    "Matching",
    "NaN",
    "Poisoned",
    "Release",
    "Search",
    "Shadows",
    "SignFlip",
    "View",
    "surrogate",
]
