"""What runs on a device: answering with an artefact, without torch."""

from duetto.device.artefact import Artefact
from duetto.device.stages import Stages

__all__ = ["Artefact", "Stages"]
