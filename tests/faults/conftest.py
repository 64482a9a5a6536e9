"""What the tests of faults begin with."""

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # by these names nightly.py, which is no test, imports them too

from world import Template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Folders of a cloud and of a device that is enrolled there, made by the command line."""
    pytest.importorskip("onnx")
    return asyncio.run(Template.make(tmp_path_factory.mktemp("template")))
