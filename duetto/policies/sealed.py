"""A folder of two files, in which one changed byte is noticed: words and numbers as JSON, and arrays beside them.

``router.json`` names its format and version, the sha256 of the weights in ``router.safetensors``, and one of itself.
That tells damage and carelessness; who may write the folder can write another one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duetto.errors import DataError

ABOUT, WEIGHTS = "router.json", "router.safetensors"
MADE_BY = "`duetto route fit` or `duetto route calibrate`"


def write(folder: str | Path, form: str, version: int, about: Mapping[str, Any], weights: bytes) -> Path:
    """Write both files, the weights first; the folder is made where needed.

    Raises:
        DataError: a folder that cannot be written.
    """
    folder = Path(folder)
    sums = {"file": WEIGHTS, "bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    whole: dict[str, Any] = {"format": form, "version": version, **about, "weights": sums}
    whole["sha256"] = _signature(whole)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((WEIGHTS, weights), (ABOUT, (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode())):
            part = folder / f"{name}.part"
            part.write_bytes(data)
            os.replace(part, folder / name)
    except OSError as fault:
        raise DataError(f"cannot write {folder} ({fault.strerror})", "name a folder that can be written") from fault
    return folder


def read(folder: str | Path, form: str, version: int) -> tuple[Mapping[str, Any], bytes]:
    """What a folder says of itself, and its weights; every byte is checked.

    Raises:
        DataError: missing, damaged or changed files, or those of another program or version; one line says which.
    """
    folder = Path(folder)
    about = _about(folder)
    if about.get("format") != form:
        raise DataError(f"{folder / ABOUT} describes no {form}", f"name a folder that {MADE_BY} wrote")
    if about.get("version") != version:
        raise DataError(
            f"{folder} has format {about.get('version')!r}, this is {version}", "fit anew, or update duetto"
        )
    if about.get("sha256") != _signature(about):
        raise DataError(f"{folder / ABOUT} was changed after it was written", "copy it again, or fit anew")
    weights = _read(folder / WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != about["weights"]["sha256"]:
        raise DataError(f"{folder / WEIGHTS} is not what {ABOUT} was written with", "copy both again, or fit anew")
    return about, weights


def form_of(folder: str | Path) -> str:
    """The format that a folder names.

    Raises:
        DataError: a file that is missing or no JSON.
    """
    return str(_about(Path(folder)).get("format"))


def _about(folder: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(_read(folder / ABOUT))
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"{folder / ABOUT} is no JSON ({fault})", "copy it again, or fit anew") from fault
    return about if isinstance(about, dict) else {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise DataError(f"cannot read {path} ({fault.strerror})", f"name a folder that {MADE_BY} wrote") from fault


def _signature(about: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in about.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode()).hexdigest()
