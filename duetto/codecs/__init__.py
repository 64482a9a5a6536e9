"""Whatever sits between a party's work and the wire: quantise, compress. Identity is ``Chain()``."""

from duetto.codecs.entropy import Zstd
from duetto.codecs.factored import Factored
from duetto.codecs.quantise import Quantise

__all__ = ["Factored", "Quantise", "Zstd"]
