"""Sentence embeddings from a model that is already here: an ONNX file, or a sentence-transformers folder.

Either is a ``embed`` of :class:`duetto.policies.TextGain`: a frozen dataclass that turns texts into ``[n, d]``
numbers. Nothing is downloaded; what does not lie under the path is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Array


@dataclass(frozen=True)
class OnnxEmbedding:
    """The embedding of a model in an ONNX file.

    A model with one input of strings gets the texts. Any other gets what ``tokenise`` makes of them, or the
    ``tokenizer.json`` that lies beside the file (with the package ``tokenizers``); of its inputs those are fed that the
    tokens have a name for (``input_ids``, ``attention_mask``, ``token_type_ids``). The first output is the embedding:
    ``[n, d]``, or ``[n, tokens, d]``, of which the mean over the tokens is taken that the attention mask keeps.

    Args:
        path: of the file.
        tokenise: from texts to arrays ``[n, tokens]`` by name; None for the tokeniser beside the file.

    Raises:
        ConfigError: onnxruntime or tokenizers is not installed.
        DataError: a file that is missing or no model, inputs that nothing fills, or an output of another shape.
    """

    path: str
    tokenise: Callable[[list[str]], Mapping[str, Array]] | None = None

    def __call__(self, texts: list[str]) -> np.ndarray:
        """``[n, d]`` float32."""
        session = _session(self.path)
        inputs = session.get_inputs()
        if len(inputs) == 1 and inputs[0].type == "tensor(string)":
            fed: Mapping[str, Array] = {inputs[0].name: np.array(texts, object)}
        else:
            fed = (self.tokenise or _tokeniser(str(Path(self.path).with_name("tokenizer.json"))))(texts)
        if missing := [each.name for each in inputs if each.name not in fed]:
            raise DataError(f"{self.path} wants {missing[0]!r}, which is not there", "give a tokenise that makes it")
        found = np.asarray(session.run(None, {each.name: fed[each.name] for each in inputs})[0], np.float32)
        if found.ndim == 3:
            mask = np.asarray(fed.get("attention_mask", np.ones(found.shape[:2])), np.float32)[..., None]
            found = (found * mask).sum(1) / np.maximum(mask.sum(1), 1)
        if found.ndim != 2 or len(found) != len(texts):
            raise DataError(f"{self.path} gives {found.shape} for {len(texts)} texts", "its first output is [n, d]")
        return found


@dataclass(frozen=True)
class SentenceEmbedding:
    """The embedding of a sentence-transformers model in a folder.

    Args:
        path: of the folder.

    Raises:
        ConfigError: sentence-transformers is not installed.
        DataError: no such folder.
    """

    path: str

    def __call__(self, texts: list[str]) -> np.ndarray:
        """``[n, d]`` float32."""
        return np.asarray(_sentences(self.path).encode(texts, show_progress_bar=False), np.float32)


def embedding(path: str) -> OnnxEmbedding | SentenceEmbedding:
    """The embedding under a path: an ONNX file, or a sentence-transformers folder.

    Raises:
        DataError: neither is there.
    """
    if Path(path).is_dir():
        return SentenceEmbedding(path)
    if not Path(path).is_file():
        raise DataError(f"there is no {path}", "name an ONNX file or a sentence-transformers folder")
    return OnnxEmbedding(path)


@lru_cache(maxsize=4)
def _session(path: str) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states
    except ImportError as error:
        raise ConfigError("onnxruntime is not installed", "pip install 'duetto[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    faults = (states.Fail, states.InvalidArgument, states.InvalidGraph, states.InvalidProtobuf, states.NoSuchFile)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except faults as error:
        raise DataError(f"{path} is no model ({error})".replace("\n", " "), "name an ONNX file") from error


@lru_cache(maxsize=4)
def _tokeniser(path: str) -> Callable[[list[str]], Mapping[str, Array]]:
    if not Path(path).is_file():
        raise DataError(f"there is no {path}", "put the model's tokenizer.json beside it, or give a tokenise")
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigError("tokenizers is not installed", "pip install tokenizers, or give a tokenise") from error
    tokenizer = Tokenizer.from_file(path)
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()

    def tokenise(texts: list[str]) -> Mapping[str, Array]:
        coded = tokenizer.encode_batch(texts)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {name: np.array([getattr(each, of) for each in coded], np.int64) for name, of in columns.items()}

    return tokenise


@lru_cache(maxsize=2)
def _sentences(path: str) -> Any:
    if not Path(path).is_dir():
        raise DataError(f"there is no folder {path}", "name a sentence-transformers folder")
    try:
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigError("sentence-transformers is not installed", "pip install sentence-transformers") from error
    return SentenceTransformer(path, device="cpu", local_files_only=True)
