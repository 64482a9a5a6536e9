"""Texts as numbers, offline and the same on every machine: hashed n-grams, and what a text looks like.

Words and characters are hashed into a fixed number of buckets (Weinberger et al. 2009), so that there is no vocabulary
to store, nothing to download, and no word that is unknown. Words by CRC-32 of their UTF-8 bytes, n-grams of
characters by a polynomial of their bytes: both are plain integers, alike on all platforms.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from duetto.errors import DataError
from duetto.tree import Array

LONGEST = 8192  # characters of a text that are read: its beginning and its end, so that no prompt costs seconds

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_PRIME = np.uint32(2654435761)  # Knuth's multiplier: near 2**32 / golden ratio
_BASE = np.uint32(16777619)  # the FNV prime
_OPTION = re.compile(r"^[ \t]*[(\[]?([A-Ja-j]|[1-9])[.):\]][ \t]*(\S.*)?$", re.MULTILINE)
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_AMOUNT = r"\$?(\d[\d,]*(?:\.\d+)?)%?"
_EQUATION = re.compile(
    rf"(?<![\d.,/*x×+\-−]){_AMOUNT}\s*([-+*/x×÷−])\s*{_AMOUNT}\s*=\s*\$?(-?\d[\d,]*(?:\.\d+)?)(?!\s*[-+*/x×÷−\d])"
)
_CHOICE = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*[(\[]?([A-J])\b", re.IGNORECASE)
_FORMS = {
    "what": "what",
    "which": "which",
    "who": "who whom whose",
    "when": "when year date",
    "where": "where",
    "why": "why because reason reasons cause causes caused",
    "how": "how",
    "how_much": "many much often far",
    "negated": "not except never least false incorrect cannot none nor",
    "best": "best most main mainly primary primarily likely",
    "if": "if suppose assume assuming assumes given let",
    "compute": "calculate compute computed find solve estimate evaluate determine",
    "rates": "per each every total times half twice percent % rate average",
    "compare": "more less fewer than respectively greater larger smaller",
    "write": "write compose draft explain describe summarize summarise rewrite",
    "person": "i my me you your he she his her they",
    "true": "true statement statements correct following",
    "may": "may might could would should must",
}
_FORM = {word: index for index, listed in enumerate(_FORMS.values()) for word in listed.split()}
_HEDGED = (
    "may might maybe perhaps possibly probably likely seem seems appear appears unclear unsure approximately about "
    "assume assuming assumed think believe however but cannot unable sorry difficult depends"
)
_HEDGES = frozenset(_HEDGED.split())
_MATHS = np.array([ord(sign) for sign in "=+^\\/*<>|$"])
SURFACE = (
    "log_characters", "log_words", "log_lines", "word_length", "long_words", "digits", "capitals", "symbols",
    "maths", "distinct_words", "sentence_length", "log_sentences", "questions", "quotes", "commas", "blanks", "years",
    "code", "roman", "numbers", "log_largest_number", "options", "option_length", "option_spread", "longest_option",
    "options_with_digits", "question_length", *_FORMS,
)  # fmt: skip
ANSWER = (
    "answer_log_characters", "answer_log_words", "answer_log_lines", "answer_per_prompt", "answer_digits",
    "answer_hedges", "answer_numbers", "answer_equations", "wrong_equations", "share_wrong_equations", "last_negative",
    "last_fraction", "log_last_number", "last_in_prompt", "last_in_answer", "prompt_numbers_used", "new_numbers",
    "prompt_numbers_left", "chosen_option", "option_quoted", "overlap", "repetition", "ends_whole", "questions_back",
    "answer_maths", "answer_empty", "last_above_prompt", "answer_capitals", "answer_word_length", "answer_sentences",
)  # fmt: skip


def texts(column: Array, name: str = "prompt") -> list[str]:
    """A column of texts ``[n]`` as a list; what is longer than :data:`LONGEST` loses its middle.

    Raises:
        DataError: something in it that is no text.
    """
    found = []
    for i, each in enumerate(np.asarray(column).ravel().tolist() if not isinstance(column, list) else column):
        if not isinstance(each, str):
            raise DataError(
                f"{name} {i + 1} is {each!r:.40}, no text", "give one text an item, empty where there is none"
            )
        half = LONGEST // 2
        found.append(each if len(each) <= LONGEST else f"{each[:half]} {each[-half:]}")
    return found


def words(text: str) -> list[str]:
    """Lower-case words, numbers by how many digits they have, and punctuation."""
    return [f"0{len(word)}" if word.isdigit() else word for word in _WORD.findall(text.lower())]


def word_grams(text: str, orders: Sequence[int] = (1, 2)) -> np.ndarray:
    """The hashes ``[k]`` uint32 of all n-grams of words, repeated as often as they occur."""
    single = np.array([zlib.crc32(word.encode("utf-8", "replace")) for word in words(text)], np.uint32)
    return _grams(single, orders)


def character_grams(text: str, orders: Sequence[int] = (3, 4, 5)) -> np.ndarray:
    """The hashes ``[k]`` uint32 of all n-grams of UTF-8 bytes; runs of blanks are one, capitals are small."""
    data = f" {' '.join(text.lower().split())} ".encode("utf-8", "replace")
    return _grams(np.frombuffer(data, np.uint8).astype(np.uint32), orders)


def _grams(single: np.ndarray, orders: Sequence[int]) -> np.ndarray:
    found, rolled = [], np.zeros(len(single), np.uint32)
    for order in range(1, max(orders) + 1):
        if order > len(single):
            break
        rolled = rolled[: len(single) - order + 1] * _BASE + single[order - 1 :] + np.uint32(order)
        if order in orders:
            found.append(rolled * _PRIME)
    return np.concatenate(found) if found else np.zeros(0, np.uint32)


def counted(hashes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The buckets ``[m]`` int64 that occur, sorted, and how often, as ``1 + log(count)`` float32."""
    buckets, count = np.unique(hashes >> np.uint32(32 - bits), return_counts=True)
    return buckets.astype(np.int64), (1 + np.log(count)).astype(np.float32)


def surface(text: str) -> np.ndarray:
    """What a text looks like: :data:`SURFACE`, ``[d]`` float64, all finite, of the size of 1."""
    found = words(text)
    n, size = max(len(found), 1), max(len(text), 1)
    count = np.bincount(np.frombuffer(text.encode("latin-1", "replace"), np.uint8), minlength=256)
    lengths = [len(word) for word in found if word.isalpha()] or [0]
    forms = [0] * len(_FORMS)
    for word in found:
        if (form := _FORM.get(word)) is not None:
            forms[form] += 1
    digits, letters, blanks = int(count[48:58].sum()), sum(lengths), int(count[[9, 10, 13, 32]].sum())
    sentences = max(int(count[[33, 46, 63]].sum()), 1)
    numbers = _numbers(text) if digits else []
    options = list(_OPTION.finditer(text))
    said = [(option[2] or "").strip() for option in options]
    spans = [len(each) for each in said] or [0]
    values = [
        math.log1p(len(text)),
        math.log1p(len(found)),
        math.log1p(count[10]),
        letters / len(lengths) / 5,
        sum(length > 8 for length in lengths) / n * 5,
        digits / size * 10,
        count[65:91].sum() / size * 10,
        (size - digits - blanks - letters) / size * 10,
        count[_MATHS].sum() / size * 20,
        len(set(found)) / n,
        math.log1p(n / sentences),
        math.log1p(sentences),
        min(count[63], 3),
        min(count[34] + text.count("“"), 4) / 2,
        count[44] / n * 10,
        min(text.count("__"), 3),
        sum(1000 <= each < 2100 and each == int(each) for each in numbers[:40]) / 2,
        math.log1p(count[[59, 123, 125]].sum()),
        sum(text.count(numeral) for numeral in (" II", " III", "IV")),
        math.log1p(len(numbers)),
        math.log1p(max((abs(each) for each in numbers), default=0.0)) / 5,
        min(len(said), 8) / 4,
        math.log1p(sum(spans) / len(spans)),
        math.log1p(max(spans) - min(spans)),
        math.log1p(max(spans)),
        sum(not each.isalpha() and any(map(str.isdigit, each)) for each in said) / max(len(said), 1),
        math.log1p(options[0].start() if options else len(text)),
        *(min(form, 3) for form in forms),
    ]
    return np.array(values, np.float64)


def answered(prompt: str, answer: str) -> np.ndarray:
    """What an answer looks like beside its prompt: :data:`ANSWER`, ``[d]`` float64, all finite, of the size of 1."""
    asked, said = words(prompt), words(answer)
    given, used = _numbers(prompt), _numbers(answer)
    last = used[-1] if used else 0.0
    checks = [_holds(*each) for each in _EQUATION.findall(answer)]
    wrong = len(checks) - sum(checks)
    options = {letter.upper(): (body or "").strip().lower() for letter, body in _OPTION.findall(prompt)}
    chosen = _CHOICE.findall(answer)
    lower = answer.lower()
    known = set(given)
    sizes = [len(word) for word in said if word.isalpha()] or [0]
    pairs = list(zip(said, said[1:], said[2:], strict=False))
    values = [
        math.log1p(len(answer)),
        math.log1p(len(said)),
        math.log1p(answer.count("\n")),
        math.log1p(len(answer)) - math.log1p(len(prompt)),
        sum(map(str.isdigit, answer)) / max(len(answer), 1) * 10,
        math.log1p(sum(word in _HEDGES for word in said)),
        math.log1p(len(used)),
        math.log1p(len(checks)),
        min(wrong, 3),
        wrong / max(len(checks), 1),
        float(last < 0),
        float(last != round(last)),
        math.log1p(abs(last)) / 5,
        float(last in known) if used else 0.0,
        min(sum(each == last for each in used), 5) / 5,
        len(known & set(used)) / max(len(known), 1),
        math.log1p(len(set(used) - known)),
        float(len(known - set(used))),
        float(bool(chosen) and chosen[-1].upper() in options),
        float(sum(len(body) > 3 and body in lower for body in options.values())),
        len(set(asked) & set(said)) / max(len(set(said)), 1),
        1 - len(set(pairs)) / max(len(pairs), 1),
        float(answer.rstrip()[-1:] in ".!?)]}\"'`*$" or answer.rstrip()[-1:].isdigit()) if answer.strip() else 0.0,
        min(answer.count("?"), 3),
        sum(answer.count(sign) for sign in "=+^\\/*<>|$") / max(len(answer), 1) * 20,
        float(not answer.strip()),
        float(bool(given) and last > max(given)),
        sum(map(str.isupper, answer)) / max(len(answer), 1) * 10,
        sum(sizes) / len(sizes) / 5,
        math.log1p(sum(answer.count(sign) for sign in ".!?")),
    ]
    return np.clip(np.array(values, np.float64), -20, 20)


def _numbers(text: str) -> list[float]:
    found = []
    for each in _NUMBER.findall(text):
        value = float(each.replace(",", "").replace("−", "-")[:30])
        found.append(value if abs(value) < 1e12 else 1e12)
    return found


def _holds(left: str, sign: str, right: str, result: str) -> bool:
    """Whether an equation is right, within the rounding of what it says."""
    a, b, c = (float(each.replace(",", "")) for each in (left, right, result))
    if sign in "/÷" and b == 0:
        return False
    value: Any = {"+": a + b, "-": a - b, "−": a - b, "*": a * b, "x": a * b, "×": a * b}.get(sign)
    if value is None:
        value = a / b
    return bool(min(abs(value - c), abs(value / 100 - c), abs(value * 100 - c)) <= max(0.011 * abs(c), 0.011))
