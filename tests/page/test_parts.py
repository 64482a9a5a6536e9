"""What the page computes is what the package computes: the same trees, scores, decisions and heads."""

import base64
import json
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.device import personal
from duetto.policies import SCORES, Calibrated, Threshold, artefact, confidence
from duetto.types import Action, Held, Seen

SOURCES = Path(__file__).parents[2] / "web" / "page"


def ran(body: str, given: Any) -> Any:
    """What a few lines of JavaScript return, with `given` and the page's modules."""
    program = f"""
    import * as tree from "{SOURCES}/tree.js";
    import * as policy from "{SOURCES}/policy.js";
    import * as head from "{SOURCES}/head.js";
    import {{ readFileSync }} from "node:fs";
    const given = JSON.parse(readFileSync(0, "utf8"));
    const run = () => {{ {body} }};
    console.log(JSON.stringify(run()));
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here (apt install nodejs)")
    words = [node, "--input-type=module", "--no-warnings", "-e", program]
    done = subprocess.run(words, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_trees_are_written_and_read_alike() -> None:
    tree = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "a/b~": {"c": np.array([1, -2], np.int32)}, "e": {}}
    given = {
        "x": [[2, 3], tree["x"].ravel().tolist()],
        "c": [[2], tree["a/b~"]["c"].tolist()],
        "whole": base64.b64encode(trees.encode(tree)).decode(),
    }
    found = ran(
        """
        const leaf = (dtype, [shape, values]) => tree.array(dtype, shape, values);
        const made = { x: leaf("F32", given.x), "a/b~": { c: leaf("I32", given.c) }, e: {} };
        const read = tree.decode(Uint8Array.from(Buffer.from(given.whole, "base64")));
        const told = (each) => Buffer.from(tree.encode(each)).toString("base64");
        return [told(made), told(read), read.x.shape, [...read["a/b~"].c.data]];
        """,
        given,
    )
    for each in found[:2]:
        back = trees.decode(base64.b64decode(each))
        assert trees.encode(back) == trees.encode(tree)
    assert found[2:] == [[2, 3], [1, -2]]


def test_scores_and_decisions_are_the_policys() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, 10))
    for score in SCORES:
        found = ran("return given[0].map((each) => policy.confidence(each, given[1]));", [logits.tolist(), score])
        np.testing.assert_allclose(found, confidence(logits, score), rtol=1e-12)
    state = {"temperature": np.array(1.7), "threshold": np.array(0.55)}
    for held in (
        Held(Calibrated(score="margin"), state),
        Held(Calibrated(score="max_softmax"), {**state, "threshold": np.array(np.inf)}),
        Held(Threshold(0.8), {}),
        Held(Threshold(np.inf, "entropy"), {}),
    ):
        about = json.loads(json.dumps(artefact.told(held)))
        _, move = held.part.choose(held.state, Seen(0, answer=logits), ())
        found = ran(
            "const rule = policy.ruleOf(given[0]); return given[1].map((each) => policy.decide(rule, each, 0).ask);",
            [about, logits.tolist()],
        )
        assert found == (np.asarray(move.action) == Action.ASK).tolist(), held.part


def test_a_price_above_what_asking_can_bring_keeps_the_answer_here() -> None:
    logits, at = [2.0, 1.0, 0.0], 0.99
    sure = float(confidence(np.array([logits]))[0])
    found = ran(
        """
        const settings = { at: given[1], score: "max_softmax" };
        const rule = policy.ruleOf({ policy: { class: "Threshold", settings } });
        return given[2].map((price) => policy.decide(rule, given[0], price).ask);
        """,
        [logits, at, [0.0, 1 - sure - 1e-6, 1 - sure + 1e-6, 1.0]],
    )
    assert found == [True, True, False, False]


def test_a_policy_that_the_page_does_not_know_is_told() -> None:
    assert "does not know the policy Risk" in ran("return policy.ruleOf({policy: {class: 'Risk'}}).told;", 0)
    assert "tells no policy" in ran("return policy.ruleOf({}).told;", 0)


@pytest.mark.parametrize("n", [3, 40])
def test_the_head_is_the_devices(n: int) -> None:
    draw = np.random.default_rng(n)
    logits = draw.normal(0, 2, (n, 10)).astype(np.float32)
    target = np.eye(10)[draw.integers(0, 10, n)]
    corrected = draw.random(n) < 0.5
    fitting = personal.Fitting()
    counts = np.where(corrected, 1.0, fitting.trust)
    weight, bias = personal.fit(logits, target, counts, fitting)
    lessons = [
        {"logits": a.tolist(), "target": b.tolist(), "corrected": bool(c)}
        for a, b, c in zip(logits, target, corrected, strict=True)
    ]
    found = ran(
        """
        const made = head.fit(given);
        return { weight: made.weight, bias: made.bias, shown: given.map(({ logits }) => head.applied(logits, made)) };
        """,
        lessons,
    )
    np.testing.assert_allclose(found["weight"], weight, atol=1e-4)
    np.testing.assert_allclose(found["bias"], bias, atol=1e-4)
    np.testing.assert_allclose(found["shown"], personal.applied(logits, weight, bias), atol=1e-2)
    assert ran("return head.fit(given) === undefined;", lessons[:2])


def test_a_head_that_loses_is_not_used() -> None:
    pairs = [(wins, losses) for wins in range(8) for losses in range(8)]
    found = ran("return given.map(([wins, losses]) => head.holds(wins, losses));", pairs)
    assert found == [not personal.beaten(wins, losses, 0.5) for wins, losses in pairs]


def test_the_tally_counts_what_the_user_said() -> None:
    lessons = [
        {"corrected": True, "before": 1, "after": 2, "target": [0, 0, 1]},
        {"corrected": True, "before": 2, "after": 2, "target": [0, 0, 1]},
        {"corrected": False, "before": 0, "after": 0, "target": [1, 0, 0]},
    ]
    assert ran("return head.tally(given);", lessons) == {"count": 2, "before": 1, "after": 2}


def test_checksums_are_zlibs() -> None:
    source = (SOURCES / "talk.js").read_text()
    body = source[source.index("const TABLE") : source.index("const said")].replace("export ", "")
    data = bytes(range(256)) * 3
    assert ran(f"{body} return crc32(Uint8Array.from(given));", list(data)) == zlib.crc32(data)
