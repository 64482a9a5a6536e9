"""A large model behind an engine's address, asked as if it were here."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from duetto.cloud.elsewhere import Elsewhere, elsewhere
from duetto.cloud.external import OpenAI, OpenInference
from duetto.errors import ConfigError, DataError
from duetto.protocols.stages import Finish
from duetto.types import Local

WEIGHT = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def engine() -> Iterator[str]:
    """A server of the Open Inference Protocol, whose model is a matrix."""

    class Engine(BaseHTTPRequestHandler):
        def answered(self, told: object) -> None:
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
            found = {"name": "m", "versions": ["1"], "platform": "test", "inputs": [tensor]}
            found["outputs"] = [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
            self.answered(found if self.path.endswith("/m") else {"name": "test", "version": "1", "extensions": []})

        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (given,) = told["inputs"]
            logits = np.reshape(given["data"], given["shape"]) @ WEIGHT
            output = {
                "name": "logits",
                "datatype": "FP32",
                "shape": list(logits.shape),
                "data": logits.ravel().tolist(),
            }
            self.answered({"model_name": "m", "outputs": [output]})

        def log_message(self, format: str, *given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_devices_ask_an_engine_as_they_ask_a_model(engine: str) -> None:
    model = elsewhere(f"oip+{engine}#m")
    assert isinstance(model, Elsewhere)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    local, skill = Local(None, {"large": model}), Finish("large")
    np.testing.assert_allclose(skill(local, {"x": x}, ("k",), "a")[1]["logits"], x @ WEIGHT, rtol=1e-5)
    found = skill.many([local] * 2, [{"x": x[:2]}, {"x": x[2:]}], [("k",)] * 2, ["a", "b"])
    np.testing.assert_allclose(np.concatenate([each[1]["logits"] for each in found]), x @ WEIGHT, rtol=1e-5)
    with pytest.raises(DataError, match="cut 1"):
        skill(local, {"cut": np.int64(1), "features": {"a": x}}, ("k",), "a")


def test_an_address_names_the_engine_and_its_model() -> None:
    assert elsewhere("large.onnx") is None
    model = elsewhere("openai+http://127.0.0.1:1/v1#chat", "KEY")
    assert model is not None
    assert model.skill == OpenAI("http://127.0.0.1:1/v1", "chat", variable="KEY")
    other = elsewhere("oip+http://127.0.0.1:1#m")
    assert other is not None
    assert other.skill == OpenInference("http://127.0.0.1:1", "m")
    with pytest.raises(ConfigError, match="an engine without a model"):
        elsewhere("oip+http://127.0.0.1:1")
