"""Many clients in one call, exactly: dense layers as factors (Hu et al. would say low rank; here it is an identity).

``split`` says what of a network runs for all clients at once, ``recurrence`` how an optimiser becomes coefficients,
``dense`` what a layer is without its clients' weights, ``group`` is the loop, ``bundle`` what is left. The algebra is
in docs/concepts.md.
"""

from duetto.training.cohort.executor import Cohort

__all__ = ["Cohort"]
