"""A small and a large model for each task, trained once, and what both answer to people they were not trained on.

A pair is a file of columns (labels, users, logits of both) in a folder of the caller's; nothing is trained where it
exists. The pairs are those of the quick study, not the tasks' own: their gap is a few points, so that a promise of
1 % costs something. ``handwriting``: MLP with 32 hidden units and a convolution, trained on 250 writers; the others
are the pool. ``shift``: the same models trained on 130 employees; the pool are the other employees and all students.
``activity`` (MLP-8, forest) and ``digits`` (MLP-12 on 4x4 pixels, SVM): few users, so every user is answered by the
models of the other four fifths of the users; that is not one fixed pair, and the table says so.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tasks
from duetto import tree as trees
from duetto.types import Outcomes, rng

TASKS = ("handwriting", "activity", "digits")


def outcomes(name: str, folder: Path, seed: int = 0, labelled: bool = True) -> Outcomes:
    """What both models make of the pool of the task (or of ``shift``); users by name. Without labels, who agrees."""
    path = folder / f"{name}-{seed}.safetensors"
    if not path.exists():
        begin = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        made = _columns(*_trained(name, seed)) if name in ("handwriting", "shift") else _crossed(name, seed)
        path.write_bytes(trees.encode(made))
        print(f"{name} seed {seed}: trained in {time.perf_counter() - begin:.0f} s, kept in {path}", file=sys.stderr)
    found = trees.decode(path.read_bytes())
    names = np.array(tasks.load("handwriting" if name == "shift" else name, seed).data.users)
    return Outcomes.of_classifiers(
        found["small"], found["large"], found["labels"] if labelled else None, names[found["users"]]
    )


def _trained(name: str, seed: int) -> tuple[Any, np.ndarray, Any, Any]:
    """The handwriting data, which users are not trained on, and both models' functions from rows to logits."""
    from duetto.models import Conv, Mlp
    from duetto.training import Adam, Client, CrossEntropy, sequential

    data = tasks.load("handwriting", seed).data
    draw = rng((seed, name, "users")).permutation(len(data.users))
    if name == "shift":
        draw = np.array([i for i in draw if data.users[i].endswith("_0")])
    known, pool = draw[: 130 if name == "shift" else 250], set(range(len(data.users)))
    rows = np.isin(data.user, known)
    models = []
    for net, epochs in ((Mlp((1, 28, 28), 10, (32,)), 8), (Conv((1, 28, 28), 10, (32, 64), (128,), 0.25), 5)):
        client = Client(net, (CrossEntropy(),), Adam(2e-3, schedule="cosine"), epochs, 64)
        start = {"params": net.init(seed)}
        params = sequential.run(client, start, {"x": data.x[rows], "y": data.y[rows]}, (seed, name, str(net))).params
        models.append((net, params))
    return data, np.isin(data.user, sorted(pool - set(known.tolist()))), *models


def _columns(data: Any, rows: np.ndarray, small: Any, large: Any) -> dict[str, np.ndarray]:
    logits = [net.logits(params, data.x[rows]) for net, params in (small, large)]
    return {"labels": data.y[rows], "users": data.user[rows], "small": logits[0], "large": logits[1]}


def _crossed(name: str, seed: int, folds: int = 5) -> dict[str, np.ndarray]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    data = tasks.load(name, seed).data
    x = data.x.reshape(len(data.x), -1)
    reduced = data.x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(len(x), 16) if name == "digits" else x
    fold = rng((seed, name, "folds")).permutation(len(data.users))[data.user] % folds
    logits = {side: np.full((len(x), len(data.classes)), -30.0) for side in ("small", "large")}
    for each in range(folds):
        train, test = fold != each, fold == each
        if name == "digits":
            small, large = MLPClassifier((12,), max_iter=1500, random_state=seed), SVC(gamma=0.001 * 256, C=10)
        else:
            small = MLPClassifier((8,), max_iter=200, random_state=seed)
            large = RandomForestClassifier(200, random_state=seed)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # early or not, it is one pair
            small.fit(reduced[train], data.y[train])
        large.fit(x[train], data.y[train])
        shares = small.predict_proba(reduced[test])
        logits["small"][np.ix_(test, small.classes_)] = np.log(np.maximum(shares, 1e-12))
        logits["large"][np.flatnonzero(test), large.predict(x[test])] = 0.0
    return {"labels": data.y, "users": data.user, **logits}
