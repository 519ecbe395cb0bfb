"""Every member declares what it imports. The environment that all share would hide a gap, an image would not."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = sorted(
    path.parent for path in [*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]
)
OWN = {
    path.name: tomllib.loads((member / "pyproject.toml").read_text())["project"]["name"]
    for member in MEMBERS
    for path in (member / "src").glob("tidewire*")
}
PROVIDERS = packages_distributions() | {package: [name] for package, name in OWN.items()}
# `google` and `opentelemetry` are shared by several distributions, so the second level decides.
SHARED = {
    "google.protobuf": "protobuf",
    "google.api": "googleapis-common-protos",
    "google.rpc": "googleapis-common-protos",
    "google.type": "googleapis-common-protos",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry": "opentelemetry-sdk",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", name)[0]).lower()


def declared(member: Path) -> set[str]:
    project = tomllib.loads((member / "pyproject.toml").read_text())["project"]
    extras = [name for extra in project.get("optional-dependencies", {}).values() for name in extra]
    return {normal(name) for name in [*project["dependencies"], *extras]} | {normal(project["name"])}


def imported(member: Path) -> set[str]:
    names: set[str] = set()
    for path in member.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


def provider(module: str) -> str:
    for prefix, distribution in SHARED.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return distribution
    return normal(PROVIDERS.get(module.split(".")[0], [module])[0])


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.name)
def test_what_is_imported_is_declared(member: Path) -> None:
    needed = {provider(module) for module in imported(member)}

    assert needed - declared(member) == set()


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.name)
def test_every_package_is_typed_and_documented(member: Path) -> None:
    (package,) = [
        path for path in (member / "src").iterdir() if path.is_dir() and path.name.startswith("tidewire")
    ]

    assert (package / "py.typed").is_file()
    assert ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert tomllib.loads((member / "pyproject.toml").read_text())["project"]["requires-python"] == ">=3.12"
