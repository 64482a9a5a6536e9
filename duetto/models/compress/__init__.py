"""Models made small: steps from a model to a smaller one, and files that keep one in few bytes.

A step is a frozen dataclass that maps a :class:`Model`, the :class:`Material` to do it with, and a key to a
:class:`Model`; :func:`compressed` takes several in their order (prune, then distil, then quantise). Those that train
are in :mod:`duetto.training.compress`. :func:`written` makes the file that a device answers with.
"""

from duetto.models.compress.lowrank import Factored, LowRank, factored
from duetto.models.compress.magnitude import Magnitude, sparsity
from duetto.models.compress.model import Material, Model, Step, compressed
from duetto.models.compress.rounded import Rounded, ranges
from duetto.models.compress.shown import Shown
from duetto.models.compress.stored import FORMS, Stored, slimmed, written
from duetto.models.compress.strided import strided
from duetto.models.compress.structured import Structured, hidden, importances, kept

__all__ = [
    "FORMS",
    "Factored",
    "LowRank",
    "Magnitude",
    "Material",
    "Model",
    "Rounded",
    "Shown",
    "Step",
    "Stored",
    "Structured",
    "compressed",
    "factored",
    "hidden",
    "importances",
    "kept",
    "ranges",
    "slimmed",
    "sparsity",
    "strided",
    "written",
]
