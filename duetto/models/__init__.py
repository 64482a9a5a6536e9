"""Small and large models: the zoo, the skill of answering with one, and what else the cloud teaches."""

from duetto.models.embedding import embedded
from duetto.models.mixture import Mixture
from duetto.models.net import Net
from duetto.models.returns import Neighbours, Prototypes
from duetto.models.skills import Predict
from duetto.models.zoo import Conv, Mlp

__all__ = ["Conv", "Mixture", "Mlp", "Neighbours", "Net", "Predict", "Prototypes", "embedded"]
