"""Nothing that comes over a wire or from a file can run code: no pickle anywhere in the package."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import duetto

ROOT = Path(duetto.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FORBIDDEN = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "yaml"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_what_runs_code_when_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not FORBIDDEN & set(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            allowed = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert allowed.get("allow_pickle", "False") == "False"
            assert called not in {"torch.load", "torch.save", "eval", "exec", "compile", "__import__"}


def test_the_walk_finds_the_wire() -> None:
    names = {str(path.relative_to(ROOT)) for path in FILES}
    assert {"transport/session.py", "tree.py", "parts.py", "cloud/service.py", "device/runner.py"} <= names


def test_a_conversation_never_unpickles() -> None:
    """Whatever libraries may import: between hello and answer nothing of the kind is called."""
    code = """
import asyncio, marshal, pickle, _pickle
import numpy as np
from duetto.transport.channel import pair
from duetto.transport.party import Running
from duetto.transport.remote import Remote
from duetto.transport.session import Greeting, Session
from duetto.codecs import Quantise, Zstd
from duetto.protocols import Coded
from duetto.protocols.probe import Echo
from duetto.types import Chain, Party

def never(*given, **named):
    raise AssertionError("something was unpickled")

for module in (pickle, _pickle):
    module.loads = module.load = module.Unpickler = never
pickle._loads = pickle._load = pickle._Unpickler = never
marshal.loads = never

async def main():
    one, other = pair()
    ann, ben = Running(Party(), "ann"), Running(Party(skills=(Echo,)), "ben")
    sessions = Session(one, Greeting("ann"), ann.answer), Session(other, Greeting("ben"), ben.answer)
    await asyncio.gather(*(each.open() for each in sessions))
    running = [asyncio.ensure_future(each.run()) for each in sessions]
    peer = Remote("ben", device=True)
    peer.attach(sessions[0])
    skill = Coded(Echo(), Chain((Quantise(8), Zstd(1))), Chain((Quantise(8), Zstd(1))))
    reply = await skill.asked_of(peer, {"x": np.linspace(0, 1, 100, dtype=np.float32)}, key=(1,))
    assert reply.failure is None, reply.failure
    for each in running:
        each.cancel()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
