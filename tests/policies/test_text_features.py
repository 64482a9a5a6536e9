"""Texts as numbers: the same everywhere, whatever the text."""

import zlib

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.policies import text_features as features

STRANGE = ["", " ", "\n\n", "a", "?", "é" * 50, "日本語のテキスト", "\ud800", "\x00\x01", "1e999 9" * 40, "9" * 500,
           "A. \nB. x\n(C) 3\n1) four", "x" * 50_000, "3 / 0 = 7", "-5 = -5", "½ ² ٣"]  # fmt: skip


def test_words_are_small_and_numbers_are_known_by_their_length() -> None:
    assert features.words("It's 1984, OK?") == ["it", "'", "s", "04", ",", "ok", "?"]


def test_word_grams_are_polynomials_of_crc32() -> None:
    crc = [zlib.crc32(word.encode()) for word in ("to", "be")]
    base, prime, mod = 16777619, 2654435761, 1 << 32
    first = [(each + 1) % mod for each in crc]
    second = (first[0] * base + crc[1] + 2) % mod
    expected = [each * prime % mod for each in (*first, second)]
    assert features.word_grams("To be").tolist() == expected


def test_character_grams_slide_over_bytes() -> None:
    assert len(features.character_grams("ab", (3,))) == len(" ab ") - 2
    assert features.character_grams("A  B").tolist() == features.character_grams(" a\nb ").tolist()
    assert len(features.character_grams("é", (3,))) == len(" é ".encode()) - 2
    shared = set(features.character_grams("hello", (3,))) & set(features.character_grams("yellow", (3,)))
    assert len(shared) == len({"ell", "llo"})


def test_counts_are_logarithmic_per_bucket() -> None:
    hashes = np.array([7 << 29, 7 << 29, 1 << 29], np.uint32)
    buckets, counts = features.counted(hashes, 3)
    assert buckets.tolist() == [1, 7]
    assert counts == pytest.approx([1, 1 + np.log(2)])


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_every_text_has_finite_features(text: str) -> None:
    text = features.texts([text])[0]
    looks, beside = features.surface(text), features.answered(text, text)
    assert looks.shape == (len(features.SURFACE),)
    assert beside.shape == (len(features.ANSWER),)
    assert np.isfinite(looks).all()
    assert np.isfinite(beside).all()
    for hashes in (features.word_grams(text), features.character_grams(text)):
        assert hashes.dtype == np.uint32


def test_what_a_text_looks_like() -> None:
    text = "Which of these is NOT even?\n(A) 2\n(B) 33\n(C) four\nAnswer:"
    found = dict(zip(features.SURFACE, features.surface(text), strict=True))
    assert found["log_characters"] == pytest.approx(np.log1p(len(text)))
    assert found["log_lines"] == pytest.approx(np.log1p(text.count("\n")))
    assert found["digits"] == pytest.approx(sum(c.isdigit() for c in text) / len(text) * 10)
    assert found["options"] == 3 / 4
    assert found["options_with_digits"] == pytest.approx(2 / 3)
    assert found["longest_option"] == pytest.approx(np.log1p(len("four")))
    assert (found["which"], found["negated"], found["why"], found["questions"]) == (1, 1, 0, 1)


def test_an_answer_s_arithmetic_is_checked() -> None:
    def wrong(answer: str) -> tuple[float, float]:
        found = dict(zip(features.ANSWER, features.answered("Ann has 3 and 4.", answer), strict=True))
        return np.expm1(found["answer_equations"]), found["wrong_equations"]

    assert wrong("3 + 4 = 7") == pytest.approx((1, 0))
    assert wrong("3 + 4 = 8, and 2*$1,000=$2,000") == pytest.approx((2, 1))
    assert wrong("20% x 50 = 10") == pytest.approx((1, 0))
    assert wrong("10 / 3 = 3.33") == pytest.approx((1, 0))
    assert wrong("1 / 0 = 0") == pytest.approx((1, 1))
    assert wrong("seven") == (0, 0)


def test_an_answer_is_compared_with_its_prompt() -> None:
    prompt = "Pick one.\nA. the red fox\nB. a cat"
    found = dict(zip(features.ANSWER, features.answered(prompt, "Perhaps the answer is B, a cat"), strict=True))
    assert found["chosen_option"] == 1
    assert found["option_quoted"] == 1
    assert found["answer_hedges"] == pytest.approx(np.log(2))
    assert dict(zip(features.ANSWER, features.answered(prompt, " "), strict=True))["answer_empty"] == 1


def test_long_texts_lose_their_middle_and_what_is_no_text_is_told() -> None:
    long = "a" * features.LONGEST + "b" * features.LONGEST
    (cut,) = features.texts(np.array([long], object))
    assert len(cut) == features.LONGEST + 1
    assert (cut[0], cut[-1]) == ("a", "b")
    for bad in ([None], [3.0], [float("nan")], np.array([1, 2])):
        with pytest.raises(DataError, match="no text"):
            features.texts(bad)
