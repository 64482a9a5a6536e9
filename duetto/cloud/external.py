"""Skills that an engine elsewhere answers instead of a local model: any OpenAI-compatible server, or any server of
the Open Inference Protocol v2 (KServe, Triton, MLServer, OpenVINO).

They block while they wait; the batcher's threads are there for that. Address, model and the *name* of the variable
with the key are part of the skill; the key itself is read when it is needed, and is never shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import numpy as np

from duetto.cloud.engine import Said, Unreached, address, asked
from duetto.errors import ConfigError, DataError, Error, caught
from duetto.tree import Tree
from duetto.types import Key, Local, Skill, rng

_ALTERNATIVES = 20  # of the first token; the most that OpenAI gives


@dataclass(frozen=True)
class OpenAI(Skill):
    """A completion of a prompt by a chat model; for a classifier, how likely each label word is to begin it.

    Takes ``{"prompt": [length] uint8}``, UTF-8, or ``[n, length]`` with zeros behind shorter ones (``x`` is
    understood as well). Gives ``text`` uint8 in the same form; ``tokens`` int64, how many it has (-1 where the server
    does not tell); and with ``labels``, where the server gives the log-probabilities of tokens, ``logits``
    ``[classes]`` or ``[n, classes]`` float32. A label's logit is the log-probability of all first tokens that begin
    this label word and no other; labels that are not among the 20 likeliest get what the others leave at most.

    Asked again only what the server has not begun: a completion costs money each time.

    Attributes:
        url: the base address, such as ``http://127.0.0.1:8000/v1``.
        model: as the server calls it.
        variable: the name of the environment variable with the key; empty sends none.
        system: the system message; empty sends none.
        labels: the words of the classes.
        max_tokens: of a completion.
        temperature: 0 takes the likeliest tokens; else the use's key seeds it, where the server can.
        seconds: for everything, tries and waits too.
        tries: the most tries.
        parallel: prompts under way at once.

    Raises:
        ConfigError: an address, a label or a number that is none; the key is not set or refused; no such model.
        DataError: no prompt, or an answer that is none.
        Overloaded: the server is busy for longer than there is time.
        Unreached: it is down, too slow, or broke off.
    """

    url: str
    model: str
    variable: str = ""
    system: str = ""
    labels: tuple[str, ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0
    seconds: float = 60.0
    tries: int = 3
    parallel: int = 8

    def __post_init__(self) -> None:
        address(self.url)
        words = [label.strip().casefold() for label in self.labels]
        if not all(words) or len(set(words)) < len(words):
            raise ConfigError(f"the labels {', '.join(self.labels)}", "give each class a word of its own")
        if min(self.max_tokens, self.tries, self.parallel) < 1 or not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"{self.max_tokens} tokens at {self.temperature}, {self.tries} tries, {self.parallel} at once",
                "use whole numbers from 1, and a temperature from 0",
            )
        _positive(self.seconds)

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Complete one prompt, or each row of them."""
        (result,) = self.many([local], [tree], [key], [sender])
        if isinstance(result, Error):
            raise result
        return result

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> list[tuple[Local, Tree] | Error]:
        """Complete all prompts, some at once: such servers batch by themselves."""
        read = [caught(_prompts, tree, sender) for tree, sender in zip(trees, senders, strict=True)]
        rows = [
            (prompt, (*key, i))
            for prompts, key in zip(read, keys, strict=True)
            if not isinstance(prompts, Error)
            for i, prompt in enumerate(prompts[0])
        ]
        if len(rows) > 1:
            with ThreadPoolExecutor(min(self.parallel, len(rows))) as pool:
                said = list(pool.map(lambda row: caught(self._completed, *row), rows))
        else:
            said = [caught(self._completed, *row) for row in rows]
        results: list[tuple[Local, Tree] | Error] = []
        coming = iter(said)
        for local, prompts in zip(locals, read, strict=True):
            if isinstance(prompts, Error):
                results.append(prompts)
                continue
            parts = [next(coming) for _ in prompts[0]]
            refused = next((part for part in parts if isinstance(part, Error)), None)
            found = [part for part in parts if not isinstance(part, Error)]
            results.append(refused or (local, _stacked(found, single=prompts[1])))
        return results

    def group(self, local: Local, tree: Tree) -> Any:
        """All who ask the same server in the same way."""
        return self.url, self.model

    def _completed(self, prompt: str, key: Key) -> dict[str, Any]:
        url = f"{address(self.url)}/chat/completions"
        system = [{"role": "system", "content": self.system}] if self.system else []
        question = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **({"logprobs": True, "top_logprobs": _ALTERNATIVES} if self.labels else {}),
            **({"seed": int(rng((*key, "seed")).integers(2**31))} if self.temperature else {}),
        }
        said = asked(
            "POST",
            url,
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
            key=(*key, self.url),
            seconds=self.seconds,
            repeatable=False,
            tries=self.tries,
            variable=self.variable,
        ).json(self.url)
        try:
            choice = said["choices"][0]
            text = choice["message"]["content"]
            tokens = (said.get("usage") or {}).get("completion_tokens", -1)
            if not isinstance(text, str) or not isinstance(tokens, int):
                raise TypeError
            logits = _likelihoods(choice, self.labels)
            found: dict[str, Any] = {"text": np.frombuffer(text.encode("utf-8"), np.uint8), "tokens": np.int64(tokens)}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as fault:
            raise DataError(f"{self.url} answered with what is no completion", "check what is served there") from fault
        return found if logits is None else {**found, "logits": logits}


@dataclass(frozen=True)
class OpenInference(Skill):
    """Logits from a model behind the Open Inference Protocol v2, over HTTP.

    Takes ``{"x": [n, *shape]}``, gives ``{"logits": [n, classes] float32}``, as :class:`duetto.models.Predict` does.
    The model has one input; its output is the one called "logits", or its only one. All rows go in one request:
    as bytes where the server has the extension ``binary_tensor_data``, else as JSON. Asked again after any failure:
    the same question twice does no harm.

    Attributes:
        url: the base address, such as ``http://127.0.0.1:8000``.
        model: as the server calls it.
        version: of the model; empty leaves the choice to the server.
        variable: the name of the environment variable with the key; empty sends none.
        seconds: for everything, tries and waits too.
        tries: the most tries.

    Raises:
        ConfigError: an address or a number that is none; no such model, or one of another form.
        DataError: no rows, rows of another shape, numbers that are not finite, or an answer that is none.
        Overloaded: the server is busy for longer than there is time.
        Unreached: it is down, not ready, too slow, or broke off.
    """

    url: str
    model: str
    version: str = ""
    variable: str = ""
    seconds: float = 10.0
    tries: int = 3

    def __post_init__(self) -> None:
        address(self.url)
        if self.tries < 1:
            raise ConfigError(f"{self.tries} tries", "use a whole number from 1")
        _positive(self.seconds)

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Answer all rows at once."""
        return local, {"logits": self._logits(self._rows(tree, sender), key)}

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> list[tuple[Local, Tree]]:
        """One request for all."""
        rows = [self._rows(tree, sender) for tree, sender in zip(trees, senders, strict=True)]
        logits = self._logits(np.concatenate(rows), keys[0])
        parts = np.split(logits, np.cumsum([len(part) for part in rows])[:-1])
        return [(local, {"logits": part}) for local, part in zip(locals, parts, strict=True)]

    def group(self, local: Local, tree: Tree) -> Any:
        """All who ask for the same model with rows of the same shape."""
        return self.url, self.model, np.shape(tree["x"])[1:] if isinstance(tree, Mapping) and "x" in tree else None

    def ready(self, key: Key = ("ready",)) -> None:
        """Ask whether the model can answer.

        Raises:
            Unreached: the server is down, or the model is not ready.
            ConfigError: there is no such model.
        """
        try:
            self._get(f"{self._path}/ready", key)
        except DataError as fault:  # servers answer 400 where a model is still loading
            raise Unreached(f"{self.model} is not ready", fault.remedy) from fault

    @property
    def _path(self) -> str:
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"/v2/models/{quote(self.model, safe='')}{version}"

    def _get(self, path: str, key: Key) -> Said:
        url = f"{address(self.url)}{path}"
        return asked(
            "GET",
            url,
            key=(*key, url),
            seconds=self.seconds,
            repeatable=True,
            tries=self.tries,
            variable=self.variable,
        )

    def _rows(self, tree: Tree, sender: str) -> np.ndarray:
        if not isinstance(tree, Mapping) or "x" not in tree or not np.ndim(tree["x"]) or not len(tree["x"]):
            raise DataError(f"{sender} sent no rows", 'send {"x": [n, *shape]}')
        x: np.ndarray = np.asarray(tree["x"])
        if x.dtype.kind not in "fiub" or not np.isfinite(x).all():
            raise DataError(f"{sender} sent an input that is not finite", "remove the rows with NaN or infinity")
        return x

    def _logits(self, x: np.ndarray, key: Key) -> np.ndarray:
        form = _form(self)
        if len(form.shape) != x.ndim or any(a not in (-1, b) for a, b in zip(form.shape[1:], x.shape[1:], strict=True)):
            raise DataError(f"rows of shape {x.shape[1:]} to a model of {form.shape[1:]}", "send [n, *shape]")
        if not np.can_cast(x.dtype, form.dtype, "same_kind"):
            raise DataError(f"rows of {x.dtype} to a model of {form.dtype}", f"send {form.dtype}")
        content, headers = _question(form, np.ascontiguousarray(x, form.dtype))
        url = f"{address(self.url)}{self._path}/infer"
        try:
            said = asked(
                "POST",
                url,
                content,
                headers,
                key=(*key, url),
                seconds=self.seconds,
                repeatable=True,
                tries=self.tries,
                variable=self.variable,
            )
        except (ConfigError, DataError):
            _form.cache_clear()  # it may be served in another form by now
            raise
        try:
            logits = _output(said, form.output).astype(np.float32)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as fault:
            raise DataError(f"{self.url} answered with what is no inference", "check what is served there") from fault
        if logits.ndim != 2 or len(logits) != len(x):
            raise DataError(f"{self.model} gave {logits.shape} for {len(x)} rows", "serve a model of [n, classes]")
        if not np.isfinite(logits).all():
            raise DataError(f"{self.model} gave logits that are NaN or infinite", "the model diverged")
        return logits


# ------------------------------------------------------------------------------------------------------------ texts


def _prompts(tree: Tree, sender: str) -> tuple[list[str], bool]:
    """The prompts of a message, and whether it is a single one."""
    named = [name for name in ("prompt", "x") if isinstance(tree, Mapping) and name in tree]
    array: np.ndarray = np.asarray(tree[named[0]] if named else None)
    if array.dtype != np.uint8 or array.ndim not in (1, 2):
        raise DataError(f"{sender} sent no prompt", 'send {"prompt": [length] or [n, length] uint8}')
    texts = [array.tobytes()] if array.ndim == 1 else [row.tobytes().rstrip(b"\0") for row in array]
    try:
        return [text.decode("utf-8") for text in texts], array.ndim == 1
    except UnicodeDecodeError as fault:
        raise DataError(f"{sender} sent a prompt that is not UTF-8", "encode texts as UTF-8") from fault


def _stacked(found: Sequence[Mapping[str, np.ndarray]], *, single: bool) -> Tree:
    """One answer as it is; several as rows, texts with zeros behind them; a name that one row lacks is left out."""
    if single:
        return dict(found[0])
    longest = max((len(each["text"]) for each in found), default=0)
    names = [name for name in ("tokens", "logits") if found and all(name in each for each in found)]
    text = [np.pad(each["text"], (0, longest - len(each["text"]))) for each in found]
    rows = {name: np.stack([each[name] for each in found]) for name in names}
    return {"text": np.stack(text) if text else np.zeros((0, 0), np.uint8), **rows}


def _likelihoods(choice: Any, labels: Sequence[str]) -> np.ndarray | None:
    """The logits of the labels, from the alternatives of the first token that is not white space."""
    content = ((choice.get("logprobs") or {}).get("content") or []) if labels else []
    first = next((token for token in content if token["token"].strip()), None)
    told = {each["token"]: float(each["logprob"]) for each in (first or {}).get("top_logprobs") or ()}
    if not told:
        return None
    if not all(math.isfinite(value) and value < 1e-3 for value in told.values()):
        raise ValueError("log-probabilities that are none")
    shares = np.zeros(len(labels))
    for token, value in told.items():
        word = token.strip().casefold()
        fitting = [i for i, label in enumerate(labels) if word and label.strip().casefold().startswith(word)]
        if len(fitting) == 1:
            shares[fitting[0]] += math.exp(value)
    listed = np.exp(list(told.values()))
    rest = min(listed.min(), max(1 - listed.sum(), 0.0))
    return np.asarray(np.log(np.where(shares > 0, shares, rest) + 1e-12), np.float32)


# ---------------------------------------------------------------------------------------------- Open Inference Protocol

_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


@dataclass(frozen=True)
class _Form:
    """What a served model takes and gives: names, the input's type and shape (-1 is any), and whether as bytes."""

    input: str
    datatype: str
    shape: tuple[int, ...]
    output: str
    binary: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_DTYPES[self.datatype])


@lru_cache(maxsize=64)
def _form(skill: OpenInference) -> _Form:
    """What the server tells of the model, which must be ready; asked once."""
    skill.ready()
    told = skill._get(skill._path, ("form",)).json(skill.url)
    server = skill._get("/v2", ("form",)).json(skill.url)
    try:
        inputs, outputs = told["inputs"], told["outputs"]
        output = next((each for each in outputs if each["name"] == "logits"), outputs[0])
        form = _Form(
            str(inputs[0]["name"]),
            str(inputs[0]["datatype"]),
            tuple(int(axis) for axis in inputs[0]["shape"]),
            str(output["name"]),
            "binary_tensor_data" in server.get("extensions", ()),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as fault:
        raise DataError(f"{skill.url} does not tell what {skill.model} takes", "check what is served there") from fault
    if len(inputs) != 1 or (len(outputs) != 1 and output["name"] != "logits"):
        raise ConfigError(
            f"{skill.model} has {len(inputs)} inputs and {len(outputs)} outputs", "serve one input, and logits"
        )
    if form.datatype not in _DTYPES or not form.shape:
        raise ConfigError(f"{skill.model} takes {form.datatype} {list(form.shape)}", f"serve one of {sorted(_DTYPES)}")
    return form


def _question(form: _Form, x: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """A body, and its headers."""
    tensor: dict[str, Any] = {"name": form.input, "shape": list(x.shape), "datatype": form.datatype}
    output: dict[str, Any] = {"name": form.output}
    if not form.binary:
        body = json.dumps({"inputs": [{**tensor, "data": x.ravel().tolist()}], "outputs": [output]})
        return body.encode(), {"Content-Type": "application/json"}
    tensor["parameters"], output["parameters"] = {"binary_data_size": x.nbytes}, {"binary_data": True}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    return head + x.tobytes(), {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def _output(said: Said, name: str) -> np.ndarray:
    """The tensor of that name in an answer, whichever way it came."""
    head = int(said.headers.get("inference-header-content-length", len(said.body)))
    told = json.loads(said.body[:head])
    at = head
    for tensor in told["outputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        dtype = np.dtype(_DTYPES[tensor["datatype"]])
        if tensor["name"] == name:
            if size is None:
                return np.asarray(tensor["data"]).astype(dtype).reshape(tensor["shape"])
            if len(said.body) < at + size:
                raise ValueError("an answer that is cut off")
            return np.frombuffer(said.body[at : at + size], dtype).reshape(tensor["shape"])
        at += size or 0
    raise KeyError(name)


def _positive(seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{seconds} seconds", "use a number above 0")
