"""Conversations between parties, as coroutines; every part arrives as an argument."""

from duetto.protocols.answer import Unanswered, answer, disagreement
from duetto.protocols.buffered import buffered
from duetto.protocols.coded import Coded
from duetto.protocols.collect import Plain
from duetto.protocols.probe import Echo, probe
from duetto.protocols.refined import Refined
from duetto.protocols.rounds import rounds
from duetto.protocols.stages import Advance, Finish

__all__ = [
    "Advance",
    "Coded",
    "Echo",
    "Finish",
    "Plain",
    "Refined",
    "Unanswered",
    "answer",
    "buffered",
    "disagreement",
    "probe",
    "rounds",
]
