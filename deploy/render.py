"""The chart without helm: Go's own text/template, and the manifests that stand in ``deploy/kubernetes``.

    python deploy/render.py                      # with the chart's values, to standard output
    python deploy/render.py --write              # deploy/kubernetes/duetto.yaml anew
    python deploy/render.py --set replicas=3 --set autoscaling.enabled=false

The chart uses nothing that helm adds to text/template, so that this gives what ``helm template duetto`` would.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "helm" / "duetto"
PLAIN = Path(__file__).parent / "kubernetes" / "duetto.yaml"
HEAD = "# Made from the chart's values by `python deploy/render.py --write`; change those, not this.\n"
_RENDER = "import sys, go_template; go_template.render_template(*sys.argv[1:4])"


def rendered(changes: Mapping[str, Any], release: str = "duetto") -> str:
    """All templates with the chart's values, of which some are changed: ``{"a.b": value}``.

    Raises:
        KeyError: no such value.
    """
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for path, value in changes.items():
        *branches, leaf = path.split(".")
        inner = values
        for branch in branches:
            inner = inner[branch]
        if leaf not in inner:
            raise KeyError(path)
        inner[leaf] = value
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    parts = []
    with tempfile.TemporaryDirectory() as place:
        given, made = Path(place) / "values.yaml", Path(place) / "made.yaml"
        given.write_text(yaml.safe_dump({"Values": values, "Release": {"Name": release}, "Chart": chart}))
        for template in sorted((CHART / "templates").glob("*.yaml")):
            # Go's runtime stays for as long as a process does, so it gets one of its own.
            subprocess.run([sys.executable, "-c", _RENDER, str(template), str(given), str(made)], check=True)
            if text := made.read_text(encoding="utf-8").strip():
                parts.append(f"# {template.name}\n{text}\n")
    return "---\n".join(parts)


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="may be repeated")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = rendered({path: yaml.safe_load(value) for path, _, value in (each.partition("=") for each in given.set)})
    if given.write:
        PLAIN.parent.mkdir(exist_ok=True)
        PLAIN.write_text(HEAD + text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
