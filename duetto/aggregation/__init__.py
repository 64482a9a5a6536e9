"""How replies become one tree, and the gate before it. One file serves numpy and torch (the array API standard)."""

from duetto.aggregation.clipping import CentredClip
from duetto.aggregation.gate import Gate
from duetto.aggregation.geometric import GeometricMedian
from duetto.aggregation.krum import Krum
from duetto.aggregation.mean import Mean
from duetto.aggregation.median import Median
from duetto.aggregation.stack import Stack
from duetto.aggregation.trimmed import Trimmed

__all__ = ["CentredClip", "Gate", "GeometricMedian", "Krum", "Mean", "Median", "Stack", "Trimmed"]
