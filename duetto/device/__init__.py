"""What runs on a device: answering with an artefact, without torch."""

from duetto.device.artefact import Artefact

__all__ = ["Artefact"]
