"""What the tests of the chart share: the tools that `make test-kube` has installed, and the rendered manifests of each
combination of values in charts/tidewire/ci."""

import functools
import importlib.util
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tidewire"
COMBINATIONS = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*-values.yaml"))
RELEASE = "t"
NAMESPACE = "demo"

Manifest = dict[str, Any]


def load_tools() -> Any:
    """The module that installs the tools; it is a script and in no package."""
    spec = importlib.util.spec_from_file_location(
        "charts_tools", Path(__file__).parent / "tools" / "install.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOLS = load_tools()


def run_tool(name: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    binary = TOOLS.home() / "bin" / name
    assert binary.exists(), "the tools are not installed; run `make test-kube`"
    return subprocess.run([str(binary), *arguments], input=stdin, capture_output=True, text=True, check=False)


def template(
    *options: str, release: str = RELEASE, values: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `helm template` on the chart, with `values` as one more file of values."""
    last = () if values is None else ("--values", "-")
    command = ("template", release, str(CHART), "--namespace", NAMESPACE, *options, *last)
    return run_tool("helm", *command, stdin="" if values is None else yaml.safe_dump(dict(values)))


@functools.cache
def manifests_of(combination: str) -> str:
    done = template("--values", str(CHART / "ci" / f"{combination}-values.yaml"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def parse(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(params=COMBINATIONS)
def combination(request: pytest.FixtureRequest) -> str:
    """The name of one combination of values; the test runs for each."""
    name: str = request.param
    return name


@pytest.fixture
def manifests(combination: str) -> list[Manifest]:
    """All objects that the chart makes of these values."""
    return parse(manifests_of(combination))


@pytest.fixture
def render() -> Callable[..., list[Manifest]]:
    """A function from a combination's name and more values to the manifests."""

    def rendered(combination: str, values: Mapping[str, Any] | None = None, **options: Any) -> list[Manifest]:
        done = template(
            "--values", str(CHART / "ci" / f"{combination}-values.yaml"), values=values, **options
        )
        assert done.returncode == 0, done.stderr
        return parse(done.stdout)

    return rendered


@pytest.fixture
def refuse() -> Callable[..., str]:
    """A function from values to the message with which Helm refuses them."""

    def refused(values: Mapping[str, Any]) -> str:
        done = template(values=values)
        assert done.returncode != 0, "Helm took values that it has to refuse"
        return done.stderr

    return refused


def kinds(manifests: list[Manifest], *wanted: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in wanted]


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Name of what makes it → the pod (metadata and spec) of every object that makes one."""
    found = {}
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            found[name] = manifest
        elif manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            found[name] = manifest["spec"]["template"]
    return found


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector of matchLabels, or the plain one of a Service, takes these labels. Empty: everything."""
    return (
        selector.get("matchLabels", {}) if "matchLabels" in selector else selector
    ).items() <= labels.items()


@pytest.fixture
def objects() -> Any:
    """The helpers above, for tests: importing a conftest is not possible in this import mode."""

    class Objects:
        kinds = staticmethod(kinds)
        pods = staticmethod(pods)
        selects = staticmethod(selects)
        tool = staticmethod(run_tool)
        text = staticmethod(manifests_of)
        template = staticmethod(template)
        tools = TOOLS
        chart = CHART
        root = ROOT

    return Objects
