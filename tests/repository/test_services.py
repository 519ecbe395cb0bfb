"""All services are shaped alike, so who knows one knows all: the same rooms, own ports, a page that explains them."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
ROOMS = (
    "__main__",
    "access",
    "application",
    "conversions",
    "domain",
    "grpc_api",
    "main",
    "metrics",
    "ports",
    "settings",
)
TOPICS = ("RPC", "topic", "setting")


def package(service: Path) -> Path:
    return service / "src" / f"tidewire_{service.name}"


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_it_has_the_rooms_every_service_has(service: Path) -> None:
    here = {path.stem for path in package(service).iterdir() if path.suffix == ".py" or path.is_dir()}

    assert [room for room in ROOMS if room not in here] == []
    assert (package(service) / "adapters").is_dir()


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_every_module_says_why_it_exists(service: Path) -> None:
    silent = [
        path for path in package(service).rglob("*.py") if not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert silent == []


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_its_page_explains_it(service: Path) -> None:
    text = (service / "README.md").read_text().lower()

    assert [topic for topic in TOPICS if topic.lower() not in text] == []


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_it_has_tests(service: Path) -> None:
    assert list(service.glob("tests/**/test_*.py"))


def test_no_two_services_listen_on_one_port() -> None:
    settings = [
        importlib.import_module(f"{package(service).name}.settings").Settings() for service in SERVICES
    ]
    ports = [port for each in settings for port in (each.port, each.metrics_port)]

    assert len(set(ports)) == len(ports)
