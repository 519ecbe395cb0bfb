"""`tidewire context create` for a release in a cluster takes names and token from there."""

import base64
from pathlib import Path

import pytest
from click.testing import Result
from kubernetes.client import CoreV1Api
from typer.testing import CliRunner

from tidewire_cli.contexts import Context, KubernetesRelease, load_contexts
from tidewire_cli.main import build
from tidewire_testkit.kube import KubeApi

pytestmark = [pytest.mark.kube, pytest.mark.timeout(180)]


class Setting:
    def __init__(self, api: KubeApi, namespace: str, home: Path) -> None:
        self.api, self.namespace, self.home = api, namespace, home

    def run(self, *words: str, user: str = "admin") -> Result:
        kubeconfig = self.api.kubeconfig(user, self.namespace)
        environ = {"KUBECONFIG": str(kubeconfig), "XDG_CONFIG_HOME": str(self.home)}
        return CliRunner().invoke(build(), list(words), env=environ)

    def contexts(self) -> dict[str, Context]:
        return dict(load_contexts(self.home / "tidewire" / "config.yaml").contexts)


@pytest.fixture
def setting(api: KubeApi, namespace: str, tmp_path: Path) -> Setting:
    return Setting(api, namespace, tmp_path)


def test_the_administrator_s_token_comes_from_the_keys(setting: Setting) -> None:
    data = {"admin-token": base64.b64encode(b"the.admin.token\n").decode()}
    CoreV1Api(setting.api.client()).create_namespaced_secret(
        setting.namespace, {"metadata": {"name": "tw-tidewire-keys"}, "data": data}
    )
    done = setting.run("context", "create", "plant", "--release", "tw")
    assert done.exit_code == 0, done.output
    assert "the.admin.token" not in done.output
    wanted = KubernetesRelease("admin", setting.namespace, "tw")
    assert setting.contexts()["plant"] == Context(token="the.admin.token", kubernetes=wanted)
    assert (setting.home / "tidewire" / "config.yaml").stat().st_mode & 0o077 == 0


def test_who_may_not_read_it_is_told_what_else_to_do(setting: Setting, tmp_path: Path) -> None:
    refused = setting.run("context", "create", "plant", "--release", "tw", user="nobody")
    assert refused.exit_code == 2
    assert "--token-stdin" in refused.stderr
    token = tmp_path / "token"
    token.write_text("mine")
    given = setting.run(
        "context", "create", "plant", "--release", "tw", "--token-file", str(token), user="nobody"
    )
    assert given.exit_code == 0, given.output
    assert setting.contexts()["plant"].token_file == str(token)


def service(setting: Setting, release: str) -> None:
    labels = {"app.kubernetes.io/part-of": "tidewire", "app.kubernetes.io/instance": release}
    body = {
        "metadata": {"name": f"{release}-tidewire", "labels": labels},
        "spec": {"ports": [{"port": 7001}]},
    }
    CoreV1Api(setting.api.client()).create_namespaced_service(setting.namespace, body)


def test_a_release_without_pods_is_unreachable(setting: Setting, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("mine")
    service(setting, "tw")
    setting.run("context", "create", "plant", "--release", "tw", "--token-file", str(token))
    done = setting.run("status", "--context", "plant")
    assert done.exit_code == 3
    assert "no pod of registry is ready" in done.stderr
    assert "tidewire k8s check --release tw" in done.stderr


def test_a_release_that_is_not_there_is_named_with_those_that_are(setting: Setting, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("mine")
    none = setting.run("context", "create", "plant", "--release", "tw")
    assert none.exit_code == 2
    assert f"no release tw of Tidewire in the namespace {setting.namespace}" in none.stderr
    assert "there is none" in none.stderr
    service(setting, "north")
    service(setting, "south")
    assert "there is north, south" in setting.run("context", "create", "plant", "--release", "tw").stderr
    nowhere = setting.run("context", "create", "plant", "--namespace", "nowhere")
    assert nowhere.exit_code == 2
    assert "there is no namespace nowhere in the cluster admin" in nowhere.stderr
    assert setting.contexts() == {}

    setting.run("context", "create", "plant", "--release", "tw", "--token-file", str(token))
    gone = setting.run("status", "--context", "plant")
    assert gone.exit_code == 2
    assert "there is no release tw" in gone.stderr
    assert "there is north, south" in gone.stderr


def test_a_release_without_its_keys_is_another_fault(setting: Setting) -> None:
    service(setting, "tw")
    done = setting.run("context", "create", "plant", "--release", "tw")
    assert done.exit_code == 2
    assert f"Secret {setting.namespace}/tw-tidewire-keys" in done.stderr
    assert "--keys-secret" in done.stderr
