"""Heads: what predicts a model's quality on an item from a few numbers; fitted with libraries, evaluated by numpy.

Files: head (what a head is) · logistic (a line) · neighbours (the like of it) · boosted (trees) · network (one layer).
"""

from duetto.policies.heads.boosted import Boosted
from duetto.policies.heads.head import Head
from duetto.policies.heads.logistic import Logistic
from duetto.policies.heads.neighbours import Neighbours
from duetto.policies.heads.network import Network

__all__ = ["Boosted", "Head", "Logistic", "Neighbours", "Network"]
