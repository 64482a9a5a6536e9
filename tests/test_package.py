"""The package as a whole: what importing it costs, what it offers, and what no module of it may do."""

import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import duetto

ROOT = Path(duetto.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
HEAVY = {"torch", "sklearn", "scipy", "river", "onnx", "onnxruntime", "tensorboard", "typer", "rich", "httpx"}
PICKLES = {"_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
# Rooms that hold torch, or call rooms that do; every other module is imported without it.
TORCH = ("models", "training", "attacks", "algorithms", "simulation", "programs", "worlds", "cloud", "device.learning")


def fresh(code: str) -> object:
    """What ``code`` prints, as JSON, in an interpreter that has imported nothing."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imported(tree: ast.AST) -> set[str]:
    """The top-level names of all that a module imports, inside functions too."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_importing_duetto_loads_nothing_heavy_and_is_quick() -> None:
    code = (
        "import json, sys, time; start = time.perf_counter(); import duetto;"
        "print(json.dumps([time.perf_counter() - start, [name.partition('.')[0] for name in sys.modules]]))"
    )
    runs = [fresh(code) for _ in range(3)]
    for _, loaded in runs:
        assert not HEAVY & set(loaded)
    assert min(seconds for seconds, _ in runs) < 0.5


def test_answering_needs_no_torch() -> None:
    heavy = tuple(f"duetto.{room}" for room in TORCH)
    light = [
        name
        for name in MODULES
        if name != "duetto.__main__" and not f"{name}.".startswith(tuple(f"{room}." for room in heavy))
    ]
    code = (
        "import importlib, json, sys\n"
        f"at = {{name: [importlib.import_module(name), 'torch' in sys.modules][1] for name in {light!r}}}\n"
        "print(json.dumps([name for name, loaded in at.items() if loaded][:1]))"
    )
    assert fresh(code) == [], "the first module that loads torch"


def test_public_names_are_sorted_and_there() -> None:
    assert list(duetto.__all__) == sorted(set(duetto.__all__))
    assert [name for name in duetto.__all__ if getattr(duetto, name, None) is None] == []
    assert set(duetto.__all__) <= set(dir(duetto))


def test_version_is_the_distribution_s() -> None:
    assert duetto.__version__ == importlib.metadata.version("duetto"), "run `make -B venv` after changing the version"


def test_types_are_shipped() -> None:
    assert (ROOT / "py.typed").is_file()


def test_no_module_reads_or_writes_a_pickle() -> None:
    for name, path in MODULES.items():
        tree = ast.parse(path.read_bytes())
        assert not PICKLES & imported(tree), name
        for node in ast.walk(tree):
            assert not (
                isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
            ), name
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save"}), name


def test_every_module_says_what_it_is() -> None:
    assert [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_bytes()))] == []


def test_every_folder_of_modules_is_a_package() -> None:
    assert {path.parent for path in MODULES.values()} == {path.parent for path in ROOT.rglob("__init__.py")}
