"""Whatever sits between a party's work and the wire: quantise, sparsify, factor, compress. Identity is ``Chain()``."""

from duetto.codecs.bounds import Bound, bound
from duetto.codecs.calibrated import Ranged, ranges
from duetto.codecs.entropy import Zstd
from duetto.codecs.factored import Factored
from duetto.codecs.feedback import Feedback
from duetto.codecs.lz4 import Lz4
from duetto.codecs.powersgd import PowerSGD
from duetto.codecs.progressive import Progressive, counts
from duetto.codecs.qsgd import QSGD
from duetto.codecs.quantise import Quantise
from duetto.codecs.rans import Rans, priors
from duetto.codecs.sign import Sign
from duetto.codecs.sparsify import RandomK, TopK

__all__ = [
    "Bound",
    "Factored",
    "Feedback",
    "Lz4",
    "PowerSGD",
    "Progressive",
    "QSGD",
    "Quantise",
    "RandomK",
    "Ranged",
    "Rans",
    "Sign",
    "TopK",
    "Zstd",
    "bound",
    "counts",
    "priors",
    "ranges",
]
