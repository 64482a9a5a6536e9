"""Takes the pictures of docs/: a test says what has to be seen, and then takes it.

They are written where ``DUETTO_PICTURES`` names a folder (`make pictures`), and are taken anyway. One that looks as
before stays as it is, so that milliseconds that differ from run to run do not make the repository grow.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LIMIT = 100_000  # bytes of a picture
SHARP = 1.5  # pixels of a picture to one of the page


def take(page: Any, name: str, element: str | None = None) -> None:
    """Take what the window shows, or an element: ``docs/pictures/NAME.webp``."""
    seen = page if element is None else page.locator(element)
    picture = Image.open(io.BytesIO(seen.screenshot(animations="disabled", caret="hide"))).convert("RGB")
    assert picture.getcolors(16) is None, f"{name} shows next to nothing"
    data = _webp(picture)
    folder = os.environ.get("DUETTO_PICTURES")
    if folder:
        path = Path(folder) / f"{name}.webp"
        if not path.exists() or _differ(Image.open(path), picture):
            path.write_bytes(data)


def _webp(picture: Image.Image) -> bytes:
    """Without loss where that is small enough."""
    for how in ({"lossless": True}, {"quality": 90}, {"quality": 75}):
        file = io.BytesIO()
        picture.save(file, "WEBP", method=6, **how)
        if file.tell() < LIMIT:
            return file.getvalue()
    raise AssertionError(f"a picture of {file.tell()} bytes: show less")


def _differ(before: Image.Image, now: Image.Image) -> bool:
    """Whether one sees it: more than one pixel in a hundred is plainly another."""
    if before.size != now.size:
        return True
    a, b = (np.asarray(each.convert("RGB"), np.int16) for each in (before, now))
    return bool((np.abs(a - b).max(axis=2) > 48).mean() > 0.01)
