"""Small and large models: the zoo, the skill of answering, cuts, learned bottlenecks, what else the cloud teaches."""

from duetto.models.bottleneck import Bottlenecked, fitting_cuts
from duetto.models.elastic import Slimmable, Sub
from duetto.models.embedding import embedded
from duetto.models.exits import Branched, Exit, attached, evenly
from duetto.models.lora import Lora
from duetto.models.mixture import Mixture
from duetto.models.narrow import narrowed, window
from duetto.models.net import Net
from duetto.models.returns import Neighbours, Prototypes
from duetto.models.skills import Predict
from duetto.models.staged import Half, Staged, stage
from duetto.models.zoo import (
    Chained,
    Conv,
    Inception,
    Mlp,
    Mobile,
    Ncf,
    Recurrent,
    Residual,
    Signal,
    Speech,
    Text,
    TwoTower,
    Vit,
)

__all__ = [
    "Bottlenecked",
    "Branched",
    "Chained",
    "Conv",
    "Exit",
    "Half",
    "Inception",
    "Lora",
    "Mixture",
    "Mlp",
    "Mobile",
    "Ncf",
    "Neighbours",
    "Net",
    "Predict",
    "Prototypes",
    "Recurrent",
    "Residual",
    "Signal",
    "Slimmable",
    "Speech",
    "Staged",
    "Sub",
    "Text",
    "TwoTower",
    "Vit",
    "attached",
    "embedded",
    "evenly",
    "fitting_cuts",
    "narrowed",
    "stage",
    "window",
]
