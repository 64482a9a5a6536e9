"""Small and large models: the zoo, and the skill of answering with one."""

from duetto.models.mixture import Mixture
from duetto.models.net import Net
from duetto.models.skills import Predict
from duetto.models.zoo import Conv, Mlp

__all__ = ["Conv", "Mixture", "Mlp", "Net", "Predict"]
