"""Engines elsewhere, as real servers on this machine: good ones, and such as are slow, wrong, busy, or break off."""

import json
import logging
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from duetto.cloud import engine
from duetto.cloud.batcher import Overloaded
from duetto.cloud.engine import Unreached, address
from duetto.cloud.external import OpenAI, OpenInference, _form
from duetto.errors import ConfigError, DataError, Error, caught
from duetto.types import Local

SECRET = "sk-tell-nobody"
DRAW = np.random.default_rng(0)


class Server:
    """An engine: ``answer(method, path, headers, body)`` gives a status, headers and a body, or breaks the rules."""

    def __init__(self) -> None:
        self.answer: Callable[..., Any] = lambda *_: (200, {}, b"{}")
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.at_once, self.most, self.lock = 0, 0, threading.Lock()
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.handle_it()

            def do_POST(self) -> None:
                self.handle_it()

            def handle_it(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with outer.lock:
                    outer.asked.append((self.command, self.path, headers, body))
                    outer.at_once += 1
                    outer.most = max(outer.most, outer.at_once)
                try:
                    said = outer.answer(self.command, self.path, headers, body)
                finally:
                    with outer.lock:
                        outer.at_once -= 1
                if said == "cut":  # in the middle of the answer, as a process does that is killed
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                    self.wfile.flush()
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                if said == "drip":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                    while not outer.released.wait(0.02):
                        try:
                            self.wfile.write(b" ")
                        except OSError:
                            break
                    self.close_connection = True
                    return
                status, more, content = said
                self.send_response(status)
                for name, value in {**more, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, whatever proxies the machine has, and waits between tries that nobody waits for."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(engine, "_BASE", 1e-3)
    monkeypatch.setattr(engine, "_MOST", 1e-3)
    engine._made.cache_clear()
    _form.cache_clear()
    running = Server()
    yield running
    engine._client()[1].close()
    engine._made.cache_clear()
    running.stop()


def text(words: str) -> np.ndarray:
    return np.frombuffer(words.encode(), np.uint8)


def rows(*words: str) -> np.ndarray:
    longest = max(len(each.encode()) for each in words)
    return np.stack([np.pad(text(each), (0, longest - len(each.encode()))) for each in words])


def use(skill: Any, tree: Any, sender: str = "ann") -> Any:
    return skill(Local(), tree, (0,), sender)[1]


def said(tree: Any) -> list[str]:
    return [bytes(row).rstrip(b"\0").decode() for row in np.atleast_2d(tree["text"])]


def once(*answers: Any) -> Callable[..., Any]:
    """One after the other, the last again and again."""
    left = list(answers)

    def answer(*question: Any) -> Any:
        one = left.pop(0) if len(left) > 1 else left[0]
        return one(*question) if callable(one) else one

    return answer


# ----------------------------------------------------------------------------------------------------------- OpenAI


def completing(top: dict[str, float] | None = None) -> Callable[..., Any]:
    """A chat model that shouts the prompt back."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        question = json.loads(body)
        words = question["messages"][-1]["content"].upper()
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": words}}
        if top is not None and question.get("logprobs"):
            listed = [{"token": token, "logprob": math.log(share)} for token, share in top.items()]
            blank = {"token": "\n", "logprob": -0.1, "top_logprobs": [{"token": "\n", "logprob": -0.1}]}
            choice["logprobs"] = {"content": [blank, {"token": "x", "logprob": -0.1, "top_logprobs": listed}]}
        done = {"choices": [choice], "usage": {"completion_tokens": len(words.split())}}
        return 200, {"Content-Type": "application/json"}, json.dumps(done).encode()

    return answer


GOOD = completing()


def test_a_prompt_is_completed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = GOOD
    monkeypatch.setenv("MY_KEY", SECRET)
    skill = OpenAI(f"{server.url}/v1/", "tiny", "MY_KEY", system="Be loud.", max_tokens=5)
    found = use(skill, {"prompt": text("hello wörld")})
    assert (said(found), int(found["tokens"]), found["text"].dtype) == (["HELLO WÖRLD"], 2, np.uint8)
    (method, path, headers, body), *more = server.asked
    assert (method, path, more) == ("POST", "/v1/chat/completions", [])
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert json.loads(body) == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be loud."}, {"role": "user", "content": "hello wörld"}],
        "max_tokens": 5,
        "temperature": 0.0,
    }


def test_many_prompts_go_at_once_and_one_that_fails_fails_alone(server: Server) -> None:
    together = threading.Barrier(3, timeout=20)

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        together.wait()
        return (400, {}, b"too rude") if b"rude" in body else GOOD(method, path, headers, body)

    server.answer = answer
    skill = OpenAI(server.url, "tiny", parallel=3)
    trees: list[Any] = [{"x": rows("a", "bcd")}, {"y": 1}, {"prompt": text("rude")}]
    found = skill.many([Local()] * 3, trees, [(i,) for i in range(3)], ["ann", "ben", "cem"])
    assert not isinstance(found[0], Error)
    assert (said(found[0][1]), found[0][1]["tokens"].tolist()) == (["A", "BCD"], [1, 1])
    assert [str(one) for one in found[1:]] == [
        'ben sent no prompt: send {"prompt": [length] or [n, length] uint8}',
        f"{server.url.removeprefix('http://')} refuses the question (400): too rude",
    ]
    assert server.most == 3


def test_label_words_become_logits(server: Server) -> None:
    shares = {"Yes": 0.5, " yes": 0.2, "N": 0.1, "no": 0.05, "m": 0.04, "?": 0.01}
    server.answer = completing(shares)
    found = use(OpenAI(server.url, "tiny", labels=("yes", "no", "maybe", "never")), {"prompt": rows("is it", "or")})
    assert json.loads(server.asked[0][3])["top_logprobs"] == 20
    # "N" begins two labels, so it counts for none; "never" has at most the least share listed, and what is left.
    expected = np.log([0.7, 0.05, 0.04, min(0.01, 1 - sum(shares.values()))])
    np.testing.assert_allclose(found["logits"], [expected, expected], rtol=1e-5)
    assert found["logits"].dtype == np.float32


def test_without_log_probabilities_there_are_no_logits(server: Server) -> None:
    server.answer = GOOD
    assert set(use(OpenAI(server.url, "tiny", labels=("yes", "no")), {"prompt": text("is it")})) == {"text", "tokens"}


def test_the_key_of_the_use_seeds_what_is_drawn(server: Server) -> None:
    server.answer = GOOD
    skill = OpenAI(server.url, "tiny", temperature=1.0)
    for key in ((1,), (1,), (2,)):
        skill(Local(), {"prompt": text("a")}, key, "ann")
    seeds = [json.loads(body)["seed"] for *_, body in server.asked]
    assert (seeds[0] == seeds[1], seeds[0] == seeds[2]) == (True, False)


def test_no_prompts_are_no_question(server: Server) -> None:
    assert use(OpenAI(server.url, "tiny"), {"prompt": np.zeros((0, 5), np.uint8)})["text"].shape == (0, 0)
    assert server.asked == []


@pytest.mark.parametrize(
    "tree", [{}, {"prompt": np.ones(3)}, {"prompt": np.zeros((1, 1, 1), np.uint8)}, {"prompt": text("a")[0]}, 3.0]
)
def test_what_is_no_prompt_is_refused(server: Server, tree: Any) -> None:
    with pytest.raises(DataError, match="ann sent no prompt"):
        use(OpenAI(server.url, "tiny"), tree)


def test_a_prompt_that_is_no_text_is_refused(server: Server) -> None:
    with pytest.raises(DataError, match="not UTF-8"):
        use(OpenAI(server.url, "tiny"), {"prompt": np.array([255, 254], np.uint8)})


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[" * 100_000,
        b"{}",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": "a"}}], "usage": {"completion_tokens": "many"}}',
        b'{"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "top_logprobs": '
        b'[{"token": "a", "logprob": NaN}]}]}}]}',
    ],
)
def test_an_answer_that_is_none_is_told(server: Server, body: bytes) -> None:
    server.answer = once((200, {}, body))
    with pytest.raises(DataError, match="answered with what is no") as told:
        use(OpenAI(server.url, "tiny", labels=("a", "b")), {"prompt": text("hello")})
    assert "\n" not in str(told.value)


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.answer = once((429, {}, b""), (503, {"Retry-After": "0"}, b""), GOOD)
    assert said(use(OpenAI(server.url, "tiny"), {"prompt": text("a")})) == ["A"]
    assert len(server.asked) == 3


def test_a_server_that_stays_busy_says_when_to_come_back(server: Server) -> None:
    skill = OpenAI(server.url, "tiny", seconds=5.0)
    for header, least, most in (("77", 77, 77), (formatdate(4e9, usegmt=True), 1e6, 1e10)):
        server.asked.clear()
        server.answer = once((429, {"Retry-After": header}, b""))
        with pytest.raises(Overloaded, match=r"is busy \(429\)") as told:
            use(skill, {"prompt": text("a")})
        assert least <= told.value.retry_after <= most
        assert len(server.asked) == 1, "there is no time to wait for so long"
    server.asked.clear()
    for header in ("soon", "-3", "nan", "Thu, 01 Jan 1970 00:00:00 GMT"):
        server.answer = once((503, {"Retry-After": header}, b""))
        with pytest.raises(Overloaded):
            use(skill, {"prompt": text("a")})
    assert len(server.asked) == 4 * 3


@pytest.mark.parametrize("answer", [(500, {}, b""), (502, {}, b""), (504, {}, b""), "cut"])
def test_what_may_have_been_computed_is_not_paid_for_twice(server: Server, answer: Any) -> None:
    server.answer = once(answer, GOOD)
    with pytest.raises(Unreached, match=r"failed|broke off"):
        use(OpenAI(server.url, "tiny"), {"prompt": text("a")})
    assert len(server.asked) == 1


@pytest.mark.parametrize("answer", [lambda server: lambda *_: server.released.wait(20), lambda _: lambda *_: "drip"])
def test_a_slow_server_is_not_waited_for(server: Server, answer: Any) -> None:
    server.answer = answer(server)
    with pytest.raises(Unreached, match=r"has not answered in 0\.1 s"):
        use(OpenAI(server.url, "tiny", seconds=0.1), {"prompt": text("a")})
    server.released.set()
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_told(server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers here
        port = taken.getsockname()[1]
        with pytest.raises(Unreached, match=r"cannot be reached \(ConnectError\): is it running\?"):
            use(OpenAI(f"http://127.0.0.1:{port}", "tiny"), {"prompt": text("a")})


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, ConfigError, "refuses the key in MY_KEY"),
        (403, ConfigError, "refuses the key in MY_KEY"),
        (404, ConfigError, "there is nothing at"),
        (307, ConfigError, "redirects"),
        (400, DataError, r"refuses the question \(400\): your \*\*\* is bad"),
        (422, DataError, "refuses the question"),
    ],
)
def test_what_no_other_try_would_change_is_not_tried(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Error], says: str
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    server.answer = once((status, {"Location": "http://elsewhere.invalid/"}, f"your {SECRET}\nis bad".encode()))
    with pytest.raises(kind, match=says) as told:
        use(OpenAI(server.url, "tiny", "MY_KEY"), {"prompt": text("a")})
    assert SECRET not in str(told.value)
    assert "\n" not in str(told.value)
    assert len(server.asked) == 1


def test_questions_without_a_key_say_so(server: Server) -> None:
    server.answer = once((401, {}, b""))
    with pytest.raises(ConfigError, match="refuses questions without a key"):
        use(OpenAI(server.url, "tiny"), {"prompt": text("a")})
    assert "authorization" not in server.asked[0][2]


def test_an_answer_without_end_is_not_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = once((200, {}, b" " * 10_000))
    with pytest.raises(DataError, match="more than 5000 bytes"):
        engine.asked("GET", server.url, key=(0,), seconds=5.0, repeatable=True, limit=5000)
    assert len(server.asked) == 1


def test_the_key_is_in_no_repr_and_no_log(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    skill = OpenAI(server.url, "tiny", "MY_KEY")
    with caplog.at_level(logging.DEBUG):
        for answer in (GOOD, (500, {}, SECRET.encode()), (200, {}, SECRET.encode()), "cut"):
            server.answer = once(answer)
            told = caught(use, skill, {"prompt": text("a")})
            assert answer is GOOD or SECRET not in repr(told) + str(told)
    assert SECRET not in repr(skill)
    assert all(SECRET not in record.getMessage() for record in caplog.records)


def test_a_key_that_is_none_is_told_without_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    skill = OpenAI(server.url, "tiny", "MY_KEY")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        use(skill, {"prompt": text("a")})
    monkeypatch.setenv("MY_KEY", "geheim-é")
    with pytest.raises(ConfigError, match="MY_KEY holds no key") as told:
        use(skill, {"prompt": text("a")})
    assert "geheim" not in str(told.value)
    assert server.asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://there"},
        {"url": "there:80"},
        {"url": "http://"},
        {"url": "http://there:port"},
        {"url": "http://there?x=1"},
        {"url": f"http://ann:{SECRET}@there"},
        {"labels": ("a", "A ")},
        {"labels": ("a", "")},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"tries": 0},
        {"parallel": 0},
        {"seconds": 0.0},
        {"seconds": math.inf},
    ],
)
def test_settings_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as told:
        OpenAI(**{"url": "http://there", "model": "tiny", **wrong})
    assert SECRET not in str(told.value)


def test_addresses_lose_their_last_slash() -> None:
    assert address("https://there.example:8000/v1/") == "https://there.example:8000/v1"


# ---------------------------------------------------------------------------------------- Open Inference Protocol v2

WEIGHT = DRAW.normal(size=(4, 3)).astype(np.float32)


class Inference:
    """A model ``x @ WEIGHT`` behind the protocol, as KServe describes it."""

    def __init__(self, binary: bool = False, datatype: str = "FP32", **tensors: Any) -> None:
        self.binary, self.datatype = binary, datatype
        self.tensors = {
            "inputs": [{"name": "input-0", "datatype": datatype, "shape": [-1, 4]}],
            "outputs": [{"name": "output-0", "datatype": "FP32", "shape": [-1, 3]}],
            **tensors,
        }
        self.ready: Any = (200, {}, b"")
        self.broken: dict[str, Any] = {}

    def __call__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        if path == "/v2":
            extensions = ["binary_tensor_data"] if self.binary else []
            return 200, {}, json.dumps({"name": "engine", "extensions": extensions}).encode()
        if path == "/v2/models/net%2Fa/versions/3/ready":
            return self.ready
        if path == "/v2/models/net%2Fa/versions/3":
            return 200, {}, json.dumps({"name": "net/a", **self.tensors}).encode()
        assert (method, path) == ("POST", "/v2/models/net%2Fa/versions/3/infer")
        head = int(headers.get("inference-header-content-length", len(body)))
        question = json.loads(body[:head])
        (tensor,) = question["inputs"]
        assert (tensor["name"], tensor["datatype"]) == ("input-0", self.datatype)
        dtype = {"FP32": "<f4", "INT64": "<i8"}[self.datatype]
        data = np.frombuffer(body[head:], dtype) if self.binary else np.array(tensor["data"], dtype)
        assert tensor.get("parameters", {}).get("binary_data_size", 0) == len(body) - head
        y = (data.reshape(tensor["shape"]) @ WEIGHT).astype(np.float32)
        names = [each["name"] for each in self.tensors["outputs"]]
        assert [each["name"] for each in question["outputs"]] == [names[-1]]
        output: dict[str, Any] = {"name": names[-1], "shape": list(y.shape), "datatype": "FP32"}
        if not self.binary:
            return 200, {}, json.dumps({"outputs": [{**output, "data": y.tolist(), **self.broken}]}).encode()
        other = {"name": "beside", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}}
        output["parameters"] = {"binary_data_size": y.nbytes}
        told = json.dumps({"outputs": [other, {**output, **self.broken}]}).encode()
        return 200, {"Inference-Header-Content-Length": str(len(told))}, told + b"ab" + y.tobytes()


def model(server: Server, answer: Callable[..., Any], **more: Any) -> OpenInference:
    server.answer = answer
    return OpenInference(server.url, "net/a", "3", **more)


@pytest.mark.parametrize("binary", [False, True])
def test_rows_become_logits(server: Server, binary: bool) -> None:
    skill = model(server, Inference(binary))
    x = DRAW.normal(size=(5, 4)).astype(np.float32)
    found = use(skill, {"x": x})["logits"]
    np.testing.assert_allclose(found, x @ WEIGHT, rtol=1e-5)
    assert found.dtype == np.float32
    assert [path.rpartition("/")[2] for _, path, *_ in server.asked] == ["ready", "3", "v2", "infer"]
    use(skill, {"x": x.astype(np.float64)})
    assert len(server.asked) == 5, "what the model takes is asked once"


@pytest.mark.parametrize("binary", [False, True])
def test_many_are_one_request(server: Server, binary: bool) -> None:
    skill = model(server, Inference(binary))
    parts = [DRAW.normal(size=(n, 4)).astype(np.float32) for n in (1, 3, 2)]
    found = skill.many([Local()] * 3, [{"x": part} for part in parts], [(i,) for i in range(3)], ["ann"] * 3)
    for (_, tree), part in zip(found, parts, strict=True):
        np.testing.assert_allclose(tree["logits"], part @ WEIGHT, rtol=1e-5)
    assert sum(path.endswith("/infer") for _, path, *_ in server.asked) == 1
    assert skill.group(Local(), {"x": parts[0]}) == skill.group(Local(), {"x": parts[1]})
    assert skill.group(Local(), {"x": parts[0][:, :2]}) != skill.group(Local(), {"x": parts[1]})


def test_integers_stay_integers(server: Server) -> None:
    skill = model(server, Inference(datatype="INT64"))
    x = np.arange(8).reshape(2, 4)
    np.testing.assert_allclose(use(skill, {"x": x})["logits"], x @ WEIGHT, rtol=1e-5)
    with pytest.raises(DataError, match="rows of float32 to a model of int64"):
        use(skill, {"x": x.astype(np.float32)})


def test_of_several_outputs_the_logits_are_taken(server: Server) -> None:
    outputs = [{"name": name, "datatype": "FP32", "shape": [-1, 3]} for name in ("features", "logits")]
    skill = model(server, Inference(outputs=outputs))
    assert use(skill, {"x": np.ones((1, 4), np.float32)})["logits"].shape == (1, 3)


@pytest.mark.parametrize(
    "tensors",
    [
        {"inputs": []},
        {"inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 4]}] * 2},
        {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [-1, 4]}]},
        {"inputs": [{"name": "a", "datatype": "FP32", "shape": []}]},
        {"inputs": [{"name": "a", "datatype": "FP32", "shape": "wide"}]},
        {"inputs": 3},
        {"outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in "ab"]},
    ],
)
def test_models_of_another_form_are_refused(server: Server, tensors: Any) -> None:
    with pytest.raises((ConfigError, DataError), match="net/a"):
        use(model(server, Inference(**tensors)), {"x": np.ones((1, 4), np.float32)})


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((2, 5), np.float32), r"rows of shape \(5,\)"),
        (np.ones(4, np.float32), r"rows of shape \(\)"),
        (np.full((2, 4), np.nan, np.float32), "not finite"),
        (np.ones((0, 4), np.float32), "no rows"),
        (np.float32(1), "no rows"),
        (np.array([["a"] * 4]), "not finite"),
    ],
)
def test_rows_that_are_none_are_refused(server: Server, x: Any, says: str) -> None:
    skill = model(server, Inference())
    with pytest.raises(DataError, match=says):
        use(skill, {"x": x})
    with pytest.raises(DataError, match="no rows"):
        use(skill, {})


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "another"},
        {"shape": [7, 3]},
        {"shape": [6]},
        {"datatype": "BYTES"},
        {"shape": "wide"},
        {"data": [[math.nan] * 3] * 2},
        {"data": ["a"] * 6},
        {"data": None},
    ],
)
def test_an_inference_that_is_none_is_told(server: Server, broken: dict[str, Any]) -> None:
    inference = Inference()
    inference.broken = broken
    with pytest.raises(DataError, match=r"no inference|gave") as told:
        use(model(server, inference), {"x": np.ones((2, 4), np.float32)})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("size", [10**6, -4, "many"])
def test_bytes_that_are_cut_off_are_told(server: Server, size: Any) -> None:
    inference = Inference(binary=True)
    inference.broken = {"parameters": {"binary_data_size": size}}
    with pytest.raises(DataError, match="no inference"):
        use(model(server, inference), {"x": np.ones((2, 4), np.float32)})


@pytest.mark.parametrize("answer", [(500, {}, b""), (503, {}, b""), "cut"])
def test_inferences_are_asked_for_again(server: Server, answer: Any) -> None:
    inference = Inference()
    skill = model(server, inference)
    use(skill, {"x": np.ones((1, 4), np.float32)})
    server.answer = once(answer, answer, inference)
    assert use(skill, {"x": np.ones((1, 4), np.float32)})["logits"].shape == (1, 3)
    server.answer = once(answer)
    with pytest.raises((Unreached, Overloaded)):
        use(skill, {"x": np.ones((1, 4), np.float32)})
    assert len(server.asked) == 4 + 3 + 3


def test_a_model_that_is_not_ready_is_not_asked(server: Server) -> None:
    inference = Inference()
    inference.ready = (400, {}, b"loading")
    skill = model(server, inference)
    with pytest.raises(Unreached, match="net/a is not ready: loading"):
        skill.ready()
    with pytest.raises(Unreached, match="not ready"):
        use(skill, {"x": np.ones((1, 4), np.float32)})
    assert {path.rpartition("/")[2] for _, path, *_ in server.asked} == {"ready"}
    inference.ready = (200, {}, b"")
    skill.ready()
    assert use(skill, {"x": np.ones((1, 4), np.float32)})["logits"].shape == (1, 3)


def test_a_model_that_has_changed_is_looked_at_anew(server: Server) -> None:
    skill = model(server, Inference())
    use(skill, {"x": np.ones((1, 4), np.float32)})
    newer = Inference(binary=True)
    server.answer = once((400, {}, b"another form"), newer)
    with pytest.raises(DataError, match="another form"):
        use(skill, {"x": np.ones((1, 4), np.float32)})
    assert use(skill, {"x": np.ones((1, 4), np.float32)})["logits"].shape == (1, 3)


@pytest.mark.parametrize("wrong", [{"url": "there"}, {"tries": 0}, {"seconds": -1.0}])
def test_settings_of_an_inference_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(OpenInference("http://there", "net"), **wrong)
