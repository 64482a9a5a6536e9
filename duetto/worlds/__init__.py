"""Other engines as worlds."""

from duetto.worlds.ray import Ray

__all__ = ["Ray"]
