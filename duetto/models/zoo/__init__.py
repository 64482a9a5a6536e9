"""Networks that work offline, by their sizes; none has batch normalisation, whose statistics do not average."""

from duetto.models.zoo.chain import Chained, alexnet, vgg11
from duetto.models.zoo.inception import Inception
from duetto.models.zoo.mobile import Mobile
from duetto.models.zoo.plain import Conv, Mlp
from duetto.models.zoo.recommend import Ncf, TwoTower
from duetto.models.zoo.recurrent import Recurrent
from duetto.models.zoo.residual import Residual, resnet18
from duetto.models.zoo.signal import Signal
from duetto.models.zoo.speech import Speech
from duetto.models.zoo.text import Text
from duetto.models.zoo.vit import Vit, vit_s16

__all__ = [
    "Chained",
    "Conv",
    "Inception",
    "Mlp",
    "Mobile",
    "Ncf",
    "Recurrent",
    "Residual",
    "Signal",
    "Speech",
    "Text",
    "TwoTower",
    "Vit",
    "alexnet",
    "resnet18",
    "vgg11",
    "vit_s16",
]
