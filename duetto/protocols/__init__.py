"""Conversations between parties, as coroutines; every part arrives as an argument."""

from duetto.protocols.analytics import Spell, Survey, Tally
from duetto.protocols.answer import Unanswered, answer, disagreement
from duetto.protocols.buffered import buffered
from duetto.protocols.coded import Coded
from duetto.protocols.collect import Plain
from duetto.protocols.gossip import Tell, gossip
from duetto.protocols.probe import Echo, probe
from duetto.protocols.refined import Refined
from duetto.protocols.rounds import rounds
from duetto.protocols.split import Split, split
from duetto.protocols.stages import Advance, Finish
from duetto.protocols.tiers import Tiers
from duetto.protocols.vertical import Ids, vertical

__all__ = [
    "Advance",
    "Coded",
    "Echo",
    "Finish",
    "Ids",
    "Plain",
    "Refined",
    "Spell",
    "Split",
    "Survey",
    "Tally",
    "Tell",
    "Tiers",
    "Unanswered",
    "answer",
    "buffered",
    "disagreement",
    "gossip",
    "probe",
    "rounds",
    "split",
    "vertical",
]
