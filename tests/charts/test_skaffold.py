"""skaffold.yaml names images, values and Services that exist. Skaffold itself is in no package registry."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml


@pytest.fixture
def skaffold(objects: Any) -> Any:
    return yaml.safe_load((objects.root / "skaffold.yaml").read_text())


def parts(skaffold: Any) -> Iterator[tuple[str, Any]]:
    """The configuration itself and each profile that replaces some of it."""
    yield "embedded", skaffold
    for profile in skaffold["profiles"]:
        if "build" in profile:
            yield profile["name"], profile


def test_the_profiles_are_the_backends(skaffold: Any) -> None:
    assert [profile["name"] for profile in skaffold["profiles"]] == ["embedded", "distributed", "one-broker"]


def test_every_image_that_a_backend_uses_is_built_and_passed_on(skaffold: Any, objects: Any) -> None:
    for name, part in parts(skaffold):
        artifacts = {
            artifact["image"]: artifact["docker"]["buildArgs"]["PACKAGE"]
            for artifact in part["build"]["artifacts"]
        }
        (release,) = part["deploy"]["helm"]["releases"]
        text = objects.text("default" if name == "embedded" else "distributed")
        used = {image.rpartition(":")[0] for image in re.findall(r"image: (\S+)", text)}

        assert artifacts.keys() == used
        for image, package in artifacts.items():
            short = image.removeprefix("tidewire/")
            assert package == ("tidewire" if short == "tidewire" else f"tidewire-{short}")
            passed = release["setValueTemplates"][f"image.references.{short}"]
            assert passed == f"{{{{.IMAGE_FULLY_QUALIFIED_tidewire_{short}}}}}"


def test_the_values_that_it_sets_exist(skaffold: Any, objects: Any) -> None:
    values = yaml.safe_load((objects.chart / "values.yaml").read_text())
    named = [
        path
        for _, part in parts(skaffold)
        for path in part["deploy"]["helm"]["releases"][0]["setValueTemplates"]
    ]
    for profile in skaffold["profiles"]:
        named += [patch["path"].rpartition("/")[2] for patch in profile.get("patches", [])]

    for path in named:
        below = values
        for key in path.split("."):
            below = below[key]


def test_forwarded_services_exist(skaffold: Any, objects: Any) -> None:
    for name, part in parts(skaffold):
        done = objects.template(
            *(
                "--values",
                str(
                    objects.chart / "ci" / f"{'default' if name == 'embedded' else 'distributed'}-values.yaml"
                ),
            ),
            release="tidewire",
        )
        services = objects.kinds([d for d in yaml.safe_load_all(done.stdout) if d], "Service")
        ports = {
            service["metadata"]["name"]: [p["port"] for p in service["spec"]["ports"]] for service in services
        }
        for forward in part["portForward"]:
            assert forward["port"] in ports[forward["resourceName"]]
