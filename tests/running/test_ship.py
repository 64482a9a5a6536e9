"""What is shipped: images, chart, manifests, compose, the service; as far as they go without an engine for containers.

Real tools look at them (hadolint, Go's text/template, the schemas of Kubernetes, systemd's own check where it is here),
and the entry points run outside a container with the same arguments, but for folders and ports.
"""

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from duetto.models import Mlp, export

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(DEPLOY.glob("*.Dockerfile"))
SMALL, LARGE = Mlp((4,), 3, (8,)), Mlp((4,), 3, (64,))
VALUES: dict[str, dict[str, Any]] = {
    "as it stands": {},
    "one process": {"autoscaling.enabled": False, "replicas": 1, "network.enabled": False},
    "GPUs, and a page": {"gpus": 2, "page": True, "state.storageClass": "fast", "names": ["a.example", "b.example"]},
    "an engine elsewhere": {"large": "oip+http://triton:8000#large", "arguments": ["--teach", "digits.small"]},
}


def rendered(changes: dict[str, Any]) -> str:
    """The chart with some values, by the project's own script."""
    words = [f"--set={path}={json.dumps(value)}" for path, value in changes.items()]
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "render.py"), *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def instruction(file: Path, name: str) -> list[str]:
    """The last one of its name, in its exec form."""
    found = re.findall(rf"^{name} (\[.*\])$", file.read_text(), re.M)
    words: list[str] = json.loads(found[-1])
    return words


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    tool = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([str(tool), str(file)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_image_has_what_it_copies_installs_by_the_lock_and_is_nobody_s_root(file: Path) -> None:
    text, root = file.read_text(), DEPLOY.parent
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M) for name in line.split()]
    assert copied
    ignore = (root / ".dockerignore").read_text().split()
    for name in copied:
        assert (root / name).exists(), name
        assert f"!{name}" in ignore, name
    for line in re.findall(r"pip install (.*)", text):
        assert "-c constraints.txt" in line or "constraints.txt)" in line, line
    assert re.search(r"^USER \d+$", text, re.M)
    extras = set(re.findall(r"'\.\[(.*)\]'", text)[0].split(","))
    project = (root / "pyproject.toml").read_text()
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, re.M), extra


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_is_what_kubernetes_takes(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made.yaml"
    made.write_text(rendered(VALUES[name]))
    kinds = [each["kind"] for each in yaml.safe_load_all(made.read_text())]
    wanted = {"Deployment", "Service", "ServiceAccount", "PersistentVolumeClaim", "PodDisruptionBudget"}
    wanted |= set() if name == "one process" else {"HorizontalPodAutoscaler", "NetworkPolicy"}
    assert set(kinds) == wanted
    tool = Path(sys.executable).parent / "kubernetes-validate"
    for version in ("1.28.0", "1.33.0"):
        words = [str(tool), "--strict", "-k", version, str(made)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (done.stdout + done.stderr).count("passed") == len(kinds)


def test_the_plain_manifests_are_the_chart_s() -> None:
    """Mend them by ``python deploy/render.py --write``."""
    assert (DEPLOY / "kubernetes" / "duetto.yaml").read_text().partition("\n")[2] == rendered({})


def commands() -> dict[str, list[str]]:
    """How the cloud is started: by the image alone, by compose, by the chart."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["cloud"]
    pod = next(each for each in yaml.safe_load_all(rendered({})) if each["kind"] == "Deployment")
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    return {
        "image": instruction(DEPLOY / "cloud.Dockerfile", "CMD"),
        "compose": compose["command"],
        "chart": container["args"],
    }


def elsewhere(words: Sequence[str], home: Path, admin: int) -> list[str]:
    """The same words, with another folder and port."""
    return [re.sub(r"^(.*):8080$", rf"\1:{admin}", each.replace("/var/lib/duetto", str(home))) for each in words]


@pytest.mark.parametrize("way", ["image", "compose", "chart"])
def test_the_cloud_starts_with_these_arguments_and_is_ready(
    way: str, start: Callable[..., Any], port: int, tmp_path: Path
) -> None:
    export.onnx(LARGE, LARGE.init(1), tmp_path / "large.onnx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = int(free.getsockname()[1])
    assert instruction(DEPLOY / "cloud.Dockerfile", "ENTRYPOINT") == ["duetto"]
    words = elsewhere(commands()[way], tmp_path, admin)
    ways = ["--listen", f"127.0.0.1:{port}", "--enrol", ""]
    cloud = start("cloud", *words, *ways, env={"DUETTO_CLOUD": str(tmp_path / "cloud"), "DUETTO_BLOBS": ""})
    cloud.until("listening at")
    if way == "chart":  # its probes ask over TLS
        trust = ssl.create_default_context(cafile=tmp_path / "cloud" / "authority" / "authority.pem")
        trust.check_hostname = False  # a kubelet asks by address
        address = f"https://127.0.0.1:{admin}/readyz"
    else:
        trust, address = None, f"http://127.0.0.1:{admin}/readyz"
    with urllib.request.urlopen(address, timeout=10, context=trust) as answer:
        assert json.loads(answer.read())["ready"] is True


def test_the_service_answers_through_its_pipes(tmp_path: Path, start: Callable[..., Any]) -> None:
    """Its very line for the shell, with a model of its own instead of a cloud."""
    export.onnx(SMALL, SMALL.init(0), tmp_path / "small.onnx")
    text = (DEPLOY / "duetto-device.service").read_text()
    making = re.search(r"^ExecStartPre=/usr/bin/(mkfifo .*)$", text, re.M)
    running = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", text, re.M)
    assert making is not None
    assert running is not None
    (tmp_path / "run").mkdir()

    def here(words: str) -> str:
        return words.replace("/run/duetto", str(tmp_path / "run"))

    subprocess.run(here(making[1]).split(), check=True)
    command = here(running[1]).replace("/opt/duetto/bin/duetto", f"{sys.executable} -m duetto").replace('"%H"', "phone")
    assert '--cloud "$DUETTO_CLOUD_AT"' in command
    command = command.replace('--cloud "$DUETTO_CLOUD_AT"', f"--small {tmp_path / 'small.onnx'}")
    device = subprocess.Popen(
        ["/bin/sh", "-c", command], env={"DUETTO_DEVICE": str(tmp_path / "device"), "PATH": "/usr/bin:/bin"}
    )
    try:
        with (tmp_path / "run" / "answers").open() as answers, (tmp_path / "run" / "inputs").open("w") as inputs:
            inputs.write(json.dumps([0.1, 0.2, 0.3, 0.4]) + "\n")
            inputs.flush()
            first = json.loads(answers.readline())
        assert first["by"] == "phone"
        assert device.poll() is None  # that a writer has gone is not the end
    finally:
        device.kill()
        device.wait()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_service(tmp_path: Path) -> None:
    unit = tmp_path / "duetto-device.service"
    text = (DEPLOY / "duetto-device.service").read_text()
    unit.write_text(text.replace("User=duetto", "User=root").replace("/opt/duetto/bin/duetto", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "duetto-device" not in done.stderr
