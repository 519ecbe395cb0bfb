"""What a cluster must have, by the values, and what its version is judged."""

import pytest

from tidewire_platform.kube.before import judged_version
from tidewire_platform.kube.needs import needs_of


def names(values: dict[str, object]) -> set[str]:
    return {kind.plural for kind in needs_of(values).kinds}


def test_the_chart_s_defaults_need_one_set_and_a_volume() -> None:
    needs = needs_of({})
    assert names({}) == {"services", "serviceaccounts", "secrets", "statefulsets", "networkpolicies"}
    assert (needs.volume, needs.storage_class, needs.metrics) == (True, "", False)
    claimed = needs_of({"embedded": {"persistence": {"existingClaim": "mine"}}})
    assert not claimed.volume
    assert needs_of({"embedded": {"persistence": {"storageClass": "fast"}}}).storage_class == "fast"


def test_the_distributed_backend_follows_the_load() -> None:
    needs = needs_of({"backend": "distributed"})
    assert {"deployments", "jobs", "roles", "horizontalpodautoscalers", "poddisruptionbudgets"} <= names(
        {"backend": "distributed"}
    )
    assert (needs.volume, needs.metrics) == (False, True)
    off = {name: {"autoscaling": {"enabled": False}} for name in ("registry", "ingestion", "storage")}
    assert not needs_of({"backend": "distributed", **off}).metrics
    assert "roles" not in names({"backend": "distributed", "auth": {"existingSecret": "keys"}})


def test_options_need_who_provides_them() -> None:
    values: dict[str, object] = {
        "tls": {"certManager": {"enabled": True}},
        "gatewayApi": {"grpcRoute": {"enabled": True}},
        "serviceMonitor": None,
    }
    kinds = {kind.plural: kind for kind in needs_of(values).kinds if kind.provider}
    assert kinds.keys() == {"certificates", "grpcroutes"}
    assert kinds["certificates"].provider == "cert-manager"


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("v1.36.3", "ok"),
        ("v1.30.0-gke.1", "ok"),
        ("v1.29.9+k3s1", "wrong"),
        ("v1.9.0", "wrong"),
        ("?", "warning"),
    ],
)
def test_versions(version: str, state: str) -> None:
    assert judged_version("https://cluster", {"gitVersion": version}).state.value == state
