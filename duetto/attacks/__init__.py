"""What an attacker does, to test defences against it: clients that poison, and whoever reads what was sent."""

from duetto.attacks.alie import Alie
from duetto.attacks.inversion import Inversion, Inverted
from duetto.attacks.poisoning import Attack, Boast, Gaussian, LabelFlip, NaN, Poisoned, SignFlip
from duetto.attacks.release import Release, View
from duetto.attacks.search import Search

__all__ = [
    "Alie",
    "Attack",
    "Boast",
    "Gaussian",
    "Inversion",
    "Inverted",
    "LabelFlip",
    "NaN",
    "Poisoned",
    "Release",
    "Search",
    "SignFlip",
    "View",
]
