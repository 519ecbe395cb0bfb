"""`tidewire admin bootstrap --kubernetes-secret` against a real API server."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
import typer
from click.testing import Result
from kubernetes.client import CoreV1Api, RbacAuthorizationV1Api
from typer.testing import CliRunner

from tidewire_cli.kube.cluster import connect
from tidewire_kit.clock import SystemClock
from tidewire_platform.commands import admin
from tidewire_platform.kube.keys import bootstrap_secret
from tidewire_registry.bootstrap import signer_of, token_ends_at
from tidewire_registry.key_set import missing_keys
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.kube import KubeApi

pytestmark = [pytest.mark.kube, pytest.mark.timeout(180)]

APP = typer.Typer()
APP.add_typer(admin, name="admin")
NAME = "tw-keys"
ENTRIES = {"signing-key.pem", "service-token", "admin-token"}


class Setting:
    """A namespace, and the command run in it as somebody."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.core = CoreV1Api(api.client())

    def run(self, user: str = "admin", kubeconfig: Path | None = None) -> Result:
        kubeconfig = kubeconfig or self.api.kubeconfig(user, self.namespace)
        return CliRunner().invoke(
            APP, ["admin", "bootstrap", "--kubernetes-secret", NAME], env={"KUBECONFIG": str(kubeconfig)}
        )

    def held(self) -> dict[str, bytes]:
        found = self.core.read_namespaced_secret(NAME, self.namespace)
        return {key: base64.b64decode(value) for key, value in (found.data or {}).items()}

    def create(self, entries: dict[str, bytes]) -> None:
        data = {key: base64.b64encode(value).decode() for key, value in entries.items()}
        self.core.create_namespaced_secret(self.namespace, {"metadata": {"name": NAME}, "data": data})

    def allow_nobody(self) -> None:
        """What the chart's Role allows its Job."""
        rbac = RbacAuthorizationV1Api(self.core.api_client)
        rules = [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [NAME], "verbs": ["get", "patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        ]
        rbac.create_namespaced_role(self.namespace, {"metadata": {"name": "keys"}, "rules": rules})
        rbac.create_namespaced_role_binding(
            self.namespace,
            {
                "metadata": {"name": "keys"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keys"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}],
            },
        )


@pytest.fixture
def setting(api: KubeApi, namespace: str) -> Setting:
    return Setting(api, namespace)


def check_whole(held: dict[str, bytes]) -> None:
    """The set fits together, and the tokens hold for a year."""
    assert held.keys() >= ENTRIES
    signer = signer_of(held["signing-key.pem"], "test", SystemClock())
    for name, role in (("service-token", "service"), ("admin-token", "platform-admin")):
        ends = token_ends_at(held[name], signer)
        assert ends is not None
        assert ends - time.time() > 360 * 86_400
        assert jwt.decode(held[name], options={"verify_signature": False})["roles"] == [role]


def test_it_is_made_once_by_somebody_with_little_rights_and_never_shown(setting: Setting) -> None:
    setting.allow_nobody()
    made = setting.run("nobody")
    assert made.exit_code == 0, made.stderr
    held = setting.held()
    check_whole(held)
    found = setting.core.read_namespaced_secret(NAME, setting.namespace).metadata
    assert found.annotations["helm.sh/resource-policy"] == "keep"
    assert found.labels["app.kubernetes.io/part-of"] == "tidewire"
    again = setting.run("nobody")
    assert again.exit_code == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert setting.held() == held
    said = made.stdout + made.stderr + again.stdout + again.stderr
    for value in held.values():
        assert value.decode().strip() not in said
        assert base64.b64encode(value).decode() not in said


def test_two_at_once_make_one_set(setting: Setting) -> None:
    cluster = connect(environ={"KUBECONFIG": str(setting.api.kubeconfig("admin", setting.namespace))})
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: bootstrap_secret(cluster, NAME, SystemClock()), range(4)))
    assert sum(one.created for one in done) == 1
    assert sum(bool(one.made) for one in done) == 1
    check_whole(setting.held())


def test_what_is_missing_is_added_and_the_rest_is_left(setting: Setting) -> None:
    whole = missing_keys({}, SystemClock())
    there = {"signing-key.pem": whole["signing-key.pem"], "note": b"mine"}
    setting.create(there)
    done = setting.run()
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("Completed")
    held = setting.held()
    check_whole(held)
    assert {key: held[key] for key in there} == there
    assert setting.core.read_namespaced_secret(NAME, setting.namespace).metadata.labels is None


@pytest.mark.parametrize("gone", [True, False])
def test_a_token_of_another_key_is_refused_and_nothing_is_changed(setting: Setting, gone: bool) -> None:
    there = {"service-token": missing_keys({}, SystemClock())["service-token"]}
    if not gone:
        there["signing-key.pem"] = missing_keys({}, SystemClock())["signing-key.pem"]
    setting.create(there)
    done = setting.run()
    assert done.exit_code == 1
    assert "remove those tokens" in done.stderr
    assert "Traceback" not in done.stderr
    assert setting.held() == there


def test_a_token_that_ends_is_told_and_not_renewed(setting: Setting) -> None:
    almost_a_year_ago = ManualClock(time.time_ns() // 1000 - 360 * 86_400_000_000)
    there = missing_keys({}, almost_a_year_ago)
    setting.create(there)
    done = setting.run()
    assert done.exit_code == 0
    assert "service-token ends in 5 days" in done.stderr
    assert setting.held() == there


def test_without_rights_or_a_cluster_it_says_so(setting: Setting, tmp_path: Path) -> None:
    forbidden = setting.run("nobody")
    assert forbidden.exit_code == 4
    assert f"Secret {setting.namespace}/{NAME}" in forbidden.stderr
    assert 'cannot get resource "secrets"' in forbidden.stderr
    away = setting.api.kubeconfig("admin", "away", url="https://127.0.0.1:9")
    unreachable = setting.run(kubeconfig=away)
    assert unreachable.exit_code == 3
    assert "127.0.0.1:9" in unreachable.stderr
    unknown = setting.run(kubeconfig=tmp_path / "none")
    assert unknown.exit_code == 2
    assert "KUBECONFIG" in unknown.stderr
    for one in (forbidden, unreachable, unknown):
        assert "Traceback" not in one.stderr
        assert len(one.stderr.strip().splitlines()) == 1
