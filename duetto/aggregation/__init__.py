"""How replies become one tree, and the gate before it. One file serves numpy and torch (the array API standard)."""

from duetto.aggregation.gate import Gate
from duetto.aggregation.mean import Mean
from duetto.aggregation.stack import Stack

__all__ = ["Gate", "Mean", "Stack"]
