"""Codes of 4 or 2 bits, several to a byte: the first in the low bits."""

from __future__ import annotations

from functools import cache

import numpy as np


def packed(codes: np.ndarray, each: int) -> np.ndarray:
    """Codes below ``2 ** (8 / each)`` (uint8), ``each`` of them (1, 2 or 4) to a byte along the last axis.

    The last byte is filled up with code 0.
    """
    if each == 1:
        return codes
    fill = -codes.shape[-1] % each
    if fill:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], fill), np.uint8)], -1)
    # a little-endian word holds each code 8 bits above the last; shifts bring them together in its lowest byte
    words = np.ascontiguousarray(codes).view("<u2" if each == 2 else "<u4")
    words = words | words >> (4 if each == 2 else 6)
    return np.asarray((words if each == 2 else words | words >> 12).astype(np.uint8))


def unpacked(codes: np.ndarray, each: int) -> np.ndarray:
    """What :func:`packed` was given (uint8), and code 0 for what filled the last byte up."""
    return codes if each == 1 else np.asarray(_words(each).take(codes).view(np.uint8))


@cache
def _words(each: int) -> np.ndarray:
    """``[256]`` items of ``each`` codes."""
    bits = 8 // each
    codes = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (1 << bits) - 1
    words = codes.astype(np.uint8).view("u2" if each == 2 else "u4")[:, 0]
    words.setflags(write=False)
    return words
