"""Embeddings from a model that is already here."""

from pathlib import Path

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import OnnxEmbedding, SentenceEmbedding, TextGain
from duetto.policies.embeddings import embedding
from duetto.types import Outcomes, Seen

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def save(path: Path, graph: object) -> str:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return str(path)


def tokens_model(path: Path) -> str:
    """Looks tokens up in a table: ``[n, tokens, 3]``."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["hidden"])],
        "tokens",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["n", "t", 3])],
        [helper.make_tensor("table", TensorProto.FLOAT, TABLE.shape, TABLE.ravel())],
    )
    return save(path, graph)


def strings_model(path: Path) -> str:
    """Two columns from the texts themselves: whether each is "hard" or "easy"."""
    nodes = [
        helper.make_node("Reshape", ["texts", "column_shape"], ["column"]),
        helper.make_node(
            "TfIdfVectorizer", ["column"], ["found"], mode="TF", min_gram_length=1, max_gram_length=1,
            max_skip_count=0, ngram_counts=[0], ngram_indexes=[0, 1], pool_strings=["hard", "easy"],
        ),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "strings",
        [helper.make_tensor_value_info("texts", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("column_shape", TensorProto.INT64, [2], [-1, 1])],
    )
    return save(path, graph)


def tokenise(texts: list[str]) -> dict[str, np.ndarray]:
    longest = max(map(len, texts))
    ids = [[int(c) for c in text] + [3] * (longest - len(text)) for text in texts]
    mask = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
    return {"input_ids": np.array(ids), "attention_mask": np.array(mask)}


def test_tokens_are_averaged_where_the_mask_keeps_them(tmp_path: Path) -> None:
    found = OnnxEmbedding(tokens_model(tmp_path / "m.onnx"), tokenise)(["01", "2"])
    assert found == pytest.approx(np.stack([TABLE[[0, 1]].mean(0), TABLE[2]]))


def test_texts_go_to_a_model_of_strings_and_teach_a_router(tmp_path: Path) -> None:
    embed = embedding(strings_model(tmp_path / "m.onnx"))
    assert embed(["hard", "easy", "?"]).tolist() == [[1, 0], [0, 1], [0, 0]]
    hard = np.arange(60) % 2
    seen = Seen(features={"prompt": np.where(hard, "hard", "easy").astype(object)}, size=60)
    held = TextGain(views=(), embed=embed).fit(Outcomes(1.0 - hard, np.ones(60), seen))
    scores = held.part.scores(held.state, seen)
    assert scores[hard == 1].max() < scores[hard == 0].min() - 0.5


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    path = tokens_model(tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        OnnxEmbedding(path)(["0"])
    with pytest.raises(DataError, match="wants 'input_ids'"):
        OnnxEmbedding(path, lambda texts: {"ids": np.zeros((len(texts), 1))})(["0"])
    with pytest.raises(DataError, match="there is no"):
        embedding(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="is no model"):
        embedding(str(tmp_path / "bad.onnx"))(["0"])
    assert embedding(str(tmp_path)) == SentenceEmbedding(str(tmp_path))
    with pytest.raises(DataError, match="no folder"):
        SentenceEmbedding(str(tmp_path / "none"))(["0"])
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="not installed"):
            SentenceEmbedding(str(tmp_path))(["0"])
