"""Learning together: one paper, one file, both sides of it."""

from duetto.algorithms.apfl import apfl
from duetto.algorithms.dc_ccl import dc_ccl
from duetto.algorithms.dccl import dccl
from duetto.algorithms.ditto import ditto
from duetto.algorithms.dsfl import dsfl
from duetto.algorithms.duet import duet
from duetto.algorithms.fedadg import fedadg
from duetto.algorithms.fedagg import fedagg
from duetto.algorithms.fedavg import fedavg
from duetto.algorithms.fedavg_ft import fedavg_ft
from duetto.algorithms.fedavgm import fedavgm
from duetto.algorithms.fedbn import fedbn
from duetto.algorithms.feddf import feddf
from duetto.algorithms.feddyn import feddyn
from duetto.algorithms.fedgkt import fedgkt
from duetto.algorithms.fedlora import fedlora
from duetto.algorithms.fedmd import fedmd
from duetto.algorithms.fednova import fednova
from duetto.algorithms.fedopt import fedadagrad, fedadam, fedyogi
from duetto.algorithms.fedper import fedper
from duetto.algorithms.fedprox import fedprox
from duetto.algorithms.fedrep import fedrep
from duetto.algorithms.fedrolex import fedrolex
from duetto.algorithms.ffa_lora import ffa_lora
from duetto.algorithms.heterofl import heterofl
from duetto.algorithms.ifca import ifca
from duetto.algorithms.knn_per import knn_per
from duetto.algorithms.lg_fedavg import lg_fedavg
from duetto.algorithms.moon import moon
from duetto.algorithms.per_fedavg import per_fedavg
from duetto.algorithms.pfedme import pfedme
from duetto.algorithms.reptile import reptile
from duetto.algorithms.scaffold import scaffold
from duetto.algorithms.slow_fast import slow_fast

__all__ = [
    "apfl",
    "dc_ccl",
    "dccl",
    "ditto",
    "dsfl",
    "duet",
    "fedadagrad",
    "fedadam",
    "fedadg",
    "fedagg",
    "fedavg",
    "fedavg_ft",
    "fedavgm",
    "fedbn",
    "feddf",
    "feddyn",
    "fedgkt",
    "fedlora",
    "fedmd",
    "fednova",
    "fedper",
    "fedprox",
    "fedrep",
    "fedrolex",
    "fedyogi",
    "ffa_lora",
    "heterofl",
    "ifca",
    "knn_per",
    "lg_fedavg",
    "moon",
    "per_fedavg",
    "pfedme",
    "reptile",
    "scaffold",
    "slow_fast",
]
