"""What `helm install` prints at its end names commands that exist, for what was installed."""

import re
from typing import Any

import pytest


def notes(objects: Any, combination: str) -> str:
    values = str(objects.chart / "ci" / f"{combination}-values.yaml")
    command = (
        "install",
        "t",
        str(objects.chart),
        "--namespace",
        "demo",
        "--dry-run=client",
        "--values",
        values,
    )
    done = objects.tool("helm", *command)
    assert done.returncode == 0, done.stderr
    found: str = done.stdout.partition("\nNOTES:\n")[2]
    return found


def test_the_commands_that_are_told_exist(combination: str, objects: Any) -> None:
    page = objects.root.joinpath("docs/reference/command.md").read_text()
    text = notes(objects, combination)

    commands = re.findall(
        r"\btidewire ([a-z0-9 ]+?)((?: [a-z.\d-]+| --[a-z-]+(?: [\w.-]+)?)*)$", text, re.MULTILINE
    )
    assert len(commands) >= 3
    for words, options in commands:
        assert re.search(rf"^#+ tidewire {' '.join(words.split()[:2])}$", page, re.MULTILINE), words
        for option in re.findall(r"--[a-z-]+", options):
            assert f"`{option}`" in page, option


def test_objects_that_are_named_exist(combination: str, objects: Any) -> None:
    text = notes(objects, combination)
    manifests = objects.text(combination)

    for kind, name in re.findall(r"\b(statefulset|deployment)/([\w-]+)", text):
        assert re.search(rf"kind: {kind}\nmetadata:\n  name: {name}\n", manifests, re.IGNORECASE)


@pytest.mark.parametrize(
    ("combination_", "told", "not_told"),
    [
        ("default", "exec t-tidewire-0 -- cat /data/keys/admin.token", "get secret"),
        ("distributed", "get secret t-tidewire-keys", "by TLS"),
        ("distributed", "reach it at grpc://t-tidewire-registry.demo.svc:7001.", "grpcs://"),
        ("distributed-tls", "reach it at grpcs://t-tidewire-registry.demo.svc:7001 by TLS.", " grpc://"),
        ("distributed-tls", "--keys-secret my-keys", "in the clear"),
        ("distributed-tls", "get secret t-tidewire-tls", "in the clear"),
        ("one-broker", "without networkPolicy.enabled every pod", "by TLS"),
    ],
)
def test_they_say_what_was_installed(objects: Any, combination_: str, told: str, not_told: str) -> None:
    text = notes(objects, combination_)

    assert told in text
    assert not_told not in text
