"""What an attacker does, to test defences against it: clients that poison what is learned together."""

from duetto.attacks.alie import Alie
from duetto.attacks.poisoning import Attack, Boast, Gaussian, LabelFlip, NaN, Poisoned, SignFlip

__all__ = ["Alie", "Attack", "Boast", "Gaussian", "LabelFlip", "NaN", "Poisoned", "SignFlip"]
