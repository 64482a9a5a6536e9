"""Where Duetto keeps what it can make or fetch again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_cache() -> Path:
    """``$DUETTO_CACHE``, else ``duetto`` in the platform's folder for caches."""
    if named := os.environ.get("DUETTO_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "duetto"
