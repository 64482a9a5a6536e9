"""Learning together: one paper, one file, both sides of it."""

from duetto.algorithms.dc_ccl import dc_ccl
from duetto.algorithms.dccl import dccl
from duetto.algorithms.dsfl import dsfl
from duetto.algorithms.duet import duet
from duetto.algorithms.fedavg import fedavg
from duetto.algorithms.fedavgm import fedavgm
from duetto.algorithms.feddf import feddf
from duetto.algorithms.feddyn import feddyn
from duetto.algorithms.fedlora import fedlora
from duetto.algorithms.fedmd import fedmd
from duetto.algorithms.fednova import fednova
from duetto.algorithms.fedopt import fedadagrad, fedadam, fedyogi
from duetto.algorithms.fedprox import fedprox
from duetto.algorithms.fedrolex import fedrolex
from duetto.algorithms.ffa_lora import ffa_lora
from duetto.algorithms.heterofl import heterofl
from duetto.algorithms.scaffold import scaffold

__all__ = [
    "dc_ccl",
    "dccl",
    "dsfl",
    "duet",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "feddf",
    "feddyn",
    "fedlora",
    "fedmd",
    "fednova",
    "fedprox",
    "fedrolex",
    "fedyogi",
    "ffa_lora",
    "heterofl",
    "scaffold",
]
