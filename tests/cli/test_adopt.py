"""`duetto adopt`: the figures of the Python API, nothing asked twice, and one line for each fault."""

import csv
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.policies import Calibrated, artefact
from duetto.tasks.by_user import draw_users
from duetto.types import Action, Outcomes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("httpx")

SMALL = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
LARGE = SMALL + 0.5 * np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]])
NAMES = ("walk", "run", "rest")


def linear(path: Path, weights: np.ndarray) -> None:
    """An ONNX file of ``x @ weights``."""
    rows, columns = weights.shape
    numbers = ", ".join(f"{float(each):.1f}" for each in weights.ravel())
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[n, {rows}] x) => (float[n, {columns}] logits) <float[{rows}, {columns}] w = {{{numbers}}}>
        {{ logits = MatMul(x, w) }}"""
    onnx.save(onnx.parser.parse_model(text), path)


def table(path: Path, x: np.ndarray, y: Sequence[Any], user: Sequence[str]) -> None:
    """A CSV with the label in front and the user behind."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["activity", *(f"f{i}" for i in range(x.shape[1])), "id"])
        lines.writerows([label, *row, who] for label, row, who in zip(y, x.tolist(), user, strict=True))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with two models, and rows of sixteen users."""
    linear(tmp_path / "small.onnx", SMALL)
    linear(tmp_path / "large.onnx", LARGE)
    linear(tmp_path / "two.onnx", LARGE[:, :2])
    linear(tmp_path / "wide.onnx", np.concatenate([SMALL, SMALL]))
    x, y, user = rows()
    table(tmp_path / "my.csv", x, [NAMES[each] for each in y], user.tolist())
    table(tmp_path / "few.csv", x[:60], y[:60].tolist(), user[:60].tolist())
    np.savez(tmp_path / "my.npz", x=x, y=y, user=user)
    np.savez(tmp_path / "high.npz", x=x, y=y + 1, user=user)
    np.savez(tmp_path / "nan.npz", x=np.where(x > 1.9, np.nan, x), y=y, user=user)
    (tmp_path / "words.csv").write_text("f0,label,user\nhot,1,ann\n")
    (tmp_path / "short.csv").write_text("f0,label,user\n1,1\n")
    (tmp_path / "empty.csv").write_text("f0,label,user\n")
    (tmp_path / "nobody.csv").write_text("f0,label,user\n1,1,\n")
    (tmp_path / "some.xls").write_text("")
    return tmp_path


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In eighths, so that every sum is exact in float32."""
    draw = np.random.default_rng(0)
    x = (draw.integers(-16, 17, (480, 6)) / 8).astype(np.float32)
    y = (x @ LARGE + draw.normal(size=(480, 3)) * 0.5).argmax(1)
    return x, y, np.array([f"user-{i // 30}" for i in range(480)])


OWN = ("--data", "my.csv", "--user-column", "id", "--label-column", "activity", "--classes", ",".join(NAMES))
BOTH = ("--small", "small.onnx", "--large", "large.onnx")


def same(found: dict[str, Any], small: np.ndarray, large: np.ndarray, y: np.ndarray, user: np.ndarray) -> None:
    """Whether the command's figures are those of the Python API on these logits."""
    groups = draw_users(sorted(set(user.tolist())), {"calibration": 0.5, "held-out": 0.5}, 0)
    outcomes = Outcomes.of_classifiers(small, large, y, user)
    first, held = (outcomes.rows(np.isin(user, groups[name])) for name in ("calibration", "held-out"))
    policy = Calibrated(tolerance_points=1.0).fit(first)
    asked = policy.choose(held.seen, ("x",)).action == Action.ASK
    assert held.users is not None
    values = {row["name"]: row["values"] for row in found["rows"]}
    for name, right, share in (
        ("device only", held.small, 0.0),
        ("cloud only", held.large, 1.0),
        ("calibrated", np.where(asked, held.large, held.small), asked.mean()),
    ):
        accuracy = np.mean([right[held.users == each].mean() for each in groups["held-out"]])
        assert values[name]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-9)
        assert values[name]["offload_rate"] == pytest.approx(share, abs=1e-9)
    assert found["users"] == {name: len(group) for name, group in groups.items()}


def test_the_figures_are_those_of_the_python_api(run: Callable[..., Any], here: Path) -> None:
    found = json.loads(run("adopt", *BOTH, *OWN, "--json").out)
    x, y, user = rows()
    same(found, x @ SMALL, x @ LARGE, y, user)
    again = json.loads(run("adopt", *BOTH, "--data", "my.npz", "--name", "npz", "--json").out)
    for row, other in zip(found["rows"], again["rows"], strict=True):
        assert row["values"]["accuracy"] == other["values"]["accuracy"]


def test_it_says_what_to_do_and_what_to_type(run: Callable[..., Any], here: Path) -> None:
    done = run("adopt", *BOTH, *OWN)
    assert done.code == 0, done.err
    for words in (
        "Duetto would save",
        "device only",
        "cloud only",
        "random, as often",
        "oracle, as often",
        "What speaks against it",
        "duetto cloud --large large.onnx",
        "duetto cloud enroll phone-1 > token",
        "--small small.onnx --policy runs/adopt/policy --leaves raw",
    ):
        assert words in done.out, words
    assert (here / "runs" / "adopt" / "report.html").read_text().startswith("<!doctype html>")
    kept = artefact.load(here / "runs" / "adopt" / "policy")
    assert kept.held.part == Calibrated(tolerance_points=1.0)
    assert kept.fitted_on["users"] == 8
    linear(here / "large.onnx", SMALL)
    done = run("adopt", *BOTH, *OWN, "--fresh")
    assert "The small model alone is as good" in done.out
    assert "duetto device --small small.onnx < inputs.jsonl" in done.out
    assert "duetto cloud --large" not in done.out


def test_a_device_runs_the_policy(python: Callable[..., Any], run: Callable[..., Any], here: Path) -> None:
    assert run("adopt", *BOTH, *OWN).code == 0
    x, _, _ = rows()
    sure, unsure = np.argsort((x @ SMALL).max(1) - np.median(x @ SMALL, axis=1))[[-1, 0]]
    lines = "".join(json.dumps(x[each].tolist()) + "\n" for each in (sure, unsure))
    code = (
        "import io, sys\nfrom duetto.cli import main\n"
        f"sys.stdin = io.StringIO({lines!r})\n"
        'sys.exit(main(["device", "--small", "small.onnx", "--policy", "runs/adopt/policy"]))'
    )
    done = python(code)
    assert done.code == 0, done.err
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert first["why"].startswith("max_softmax against")
    assert second["why"] == "nobody is called cloud", "it would have asked"


@pytest.fixture
def engine() -> Iterator[tuple[str, list[int]]]:
    """A server of the Open Inference Protocol, and how many rows each question had; ten questions, then it fails."""
    questions: list[int] = []

    class Engine(BaseHTTPRequestHandler):
        def answered(self, told: object, status: int = 200) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 6]}
            found = {"name": "big", "versions": ["1"], "platform": "test", "inputs": [tensor]}
            found["outputs"] = [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
            self.answered(found if self.path.endswith("/big") else {"name": "t", "version": "1", "extensions": []})

        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if len(questions) == 10:
                questions.append(0)
                self.answered({"error": "out of credit"}, 400)
                return
            (given,) = told["inputs"]
            logits = np.reshape(given["data"], given["shape"]) @ LARGE
            questions.append(len(logits))
            output = {"name": "logits", "datatype": "FP32", "shape": list(logits.shape)}
            self.answered({"model_name": "big", "outputs": [{**output, "data": logits.ravel().tolist()}]})

        def log_message(self, format: str, *given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}#big", questions
        server.shutdown()
        thread.join()


def test_an_engine_elsewhere_is_paid_once(run: Callable[..., Any], here: Path, engine: tuple[str, list[int]]) -> None:
    address, questions = engine
    words = ("adopt", "--small", "small.onnx", "--large", address, *OWN, "--timed", 4, "--price-per-call", 0.002)
    done = run(*words)
    assert done.code == 2
    assert "refuses the question (400)" in done.error
    assert "out of credit" in done.error
    found = json.loads(run(*words, "--json").out)
    assert questions[:5] == [1, 1, 1, 1, 32]
    assert sum(questions) == found["profile"]["rows"] == 480, "no row twice"
    assert found["profile"]["calls"] == len(questions) - 1
    values = {row["name"]: row["values"] for row in found["rows"]}
    assert values["cloud only"]["dollars"] == pytest.approx(2.0), "a thousand answers"
    x, y, user = rows()
    same(found, x @ SMALL, x @ LARGE, y, user)
    assert f"duetto cloud --large 'oip+{address}'" in found["next"][0]
    before = len(questions)
    assert run(*words, "--target-loss", 5, "--network", "constant-3", "--policy", "gain").code == 0
    assert len(questions) == before, "other settings ask nothing"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--small", "none.onnx"), "there is no file none.onnx"),
        (("--small", "my.csv"), "my.csv is no model"),
        (("--small", "wide.onnx"), "6 features a row for a model that takes 12 (12,)"),
        (("--large", "none.onnx"), "there is no file none.onnx"),
        (("--large", "two.onnx"), "the same classes, in the same order"),
        (("--large", "wide.onnx"), "rows of shape (6,) to a model of (12,)"),
        (("--large", "https://127.0.0.1:1"), "an engine without a model"),
        (("--large", "http://127.0.0.1:1#big"), "cannot be reached"),
        (("--large", "openai+http://127.0.0.1:1/v1#chat"), "takes prompts"),
        (("--large", "nothing"), "no model is called 'nothing'"),
        (("--data", "none.csv"), "cannot read none.csv"),
        (("--data", "some.xls"), "neither .csv nor .npz"),
        (("--data", "small.onnx"), "neither .csv nor .npz"),
        (("--user-column", "person"), "no column 'person': name it with --user-column"),
        (("--label-column", "class"), "no column 'class': name it with --label-column"),
        (("--feature-columns", "f0,f9"), "no column 'f9': name it with --feature-columns"),
        (("--feature-columns", "f0,f1"), "2 features a row for a model that takes 6 (6,)"),
        (("--classes", ""), "the label 'run' is no number of a class"),
        (("--classes", "walk,run"), "the label 'rest' is no class"),
        (("--data", "few.csv", "--classes", ""), "2 users are too few (1 calibration, 1 held-out)"),
        (("--data", "high.npz", "--user-column", "user", "--label-column", "y", "--classes", ""), "has label 3"),
        (("--data", "nan.npz", "--user-column", "user", "--label-column", "y", "--classes", ""), "NaN or infinite"),
        (("--data", "my.npz"), "my.npz has no array 'id': it has user, x, y"),
        (("--data", "words.csv", "--user-column", "user", "--label-column", "label"), "line 2: f0 is 'hot'"),
        (("--data", "short.csv", "--user-column", "user", "--label-column", "label"), "line 2: 2 cells under 3 names"),
        (("--data", "empty.csv", "--user-column", "user", "--label-column", "label"), "has no rows"),
        (("--data", "nobody.csv", "--user-column", "user", "--label-column", "label", "--classes", ""), "no user"),
        (("--target-loss", 0), "a target loss of 0.0 points"),
        (("--device", "pager"), "no device is called 'pager'"),
        (("--device", "pixel-7"), "does not tell its work"),
        (("--network", "pigeons"), "no network is called 'pigeons'"),
        (("--calibration", 1), "1.0 of the users to calibrate on"),
    ],
)
def test_each_fault_is_one_line(run: Callable[..., Any], here: Path, words: tuple[str, ...], said: str) -> None:
    done = run("adopt", *BOTH, *OWN, *words)
    assert done.code == 2
    assert said in done.error
    assert done.error.count(": ") >= 2, "error: the fault: its remedy"


def test_models_of_other_names(run: Callable[..., Any], here: Path) -> None:
    first = json.loads(run("adopt", *BOTH, *OWN, "--name", "first", "--json").out)
    for name in ("small.onnx", "large.onnx"):
        model = onnx.load(here / name)
        model.graph.input[0].name = model.graph.node[0].input[0] = "input"
        model.graph.output[0].name = model.graph.node[0].output[0] = "output"
        (here / f"own-{name}").write_bytes(model.SerializeToString())
    own = ("--small", "own-small.onnx", "--large", "own-large.onnx")
    found = json.loads(run("adopt", *own, *OWN, "--json").out)
    for row, other in zip(found["rows"], first["rows"], strict=True):
        assert row["values"]["accuracy"] == other["values"]["accuracy"]
    assert found["next"][0] == "duetto cloud --large runs/adopt/models/large.onnx"
    assert "--small runs/adopt/models/small.onnx" in found["next"][3]


def test_a_folder_of_another_large_model(run: Callable[..., Any], here: Path) -> None:
    assert run("adopt", *BOTH, *OWN).code == 0
    linear(here / "large.onnx", SMALL)
    assert "another large model's answers: choose another --name" in run("adopt", *BOTH, *OWN).error


@pytest.mark.slow
def test_activity_as_from_python(
    data_dir: Path, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duetto import tasks
    from duetto.models import export

    monkeypatch.setenv("DUETTO_DATA", str(data_dir))
    task = tasks.load("activity")
    shorter = {name: replace(getattr(task, name), epochs=4) for name in ("teach_large", "teach_small")}
    pair = tasks.trained(replace(task, **shorter))
    export.onnx(task.small, pair.small, "small.onnx")
    export.onnx(task.large, pair.large, "large.onnx")
    parts = [task.group(group) for group in ("calibration", "device", "unseen")]
    x, y = (np.concatenate([getattr(part, name) for part, _ in parts]) for name in "xy")
    user = np.concatenate([owner for _, owner in parts])
    classes = task.data.classes
    table(tmp_path / "my.csv", x, [classes[each] for each in y], user.tolist())
    words = ("adopt", *BOTH, *OWN[:-1], ",".join(classes), "--network", "4g-commute", "--device", "mid-phone")
    found = json.loads(run(*words, "--json").out)
    same(found, task.small.logits(pair.small, x), task.large.logits(pair.large, x), y, user)
    assert found["profile"]["flops"] == task.small.work(1).flops
