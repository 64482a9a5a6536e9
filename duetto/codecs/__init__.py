"""Whatever sits between a party's work and the wire: quantise, sparsify, factor, compress. Identity is ``Chain()``."""

from duetto.codecs.entropy import Zstd
from duetto.codecs.factored import Factored
from duetto.codecs.feedback import Feedback
from duetto.codecs.powersgd import PowerSGD
from duetto.codecs.qsgd import QSGD
from duetto.codecs.quantise import Quantise
from duetto.codecs.sign import Sign
from duetto.codecs.sparsify import RandomK, TopK

__all__ = ["Factored", "Feedback", "PowerSGD", "QSGD", "Quantise", "RandomK", "Sign", "TopK", "Zstd"]
