"""What an installation needs of a cluster, read from the values that Helm is given: kinds to create, and what for.

Pure. The chart's own defaults are known here only as far as they decide what is created.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object; `provider` brings it when it is not Kubernetes' own, and the value `option` asks for it."""

    group: str
    plural: str
    provider: str = ""
    option: str = ""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is to be there."""

    kinds: Sequence[Kind]
    volume: bool
    """Whether a volume is claimed, of the default StorageClass unless `storage_class` names one."""
    storage_class: str
    metrics: bool
    """Whether pods follow the load by their use of the processor."""


_ALWAYS: Final = (Kind("", "services"), Kind("", "serviceaccounts"), Kind("", "secrets"))
_EMBEDDED: Final = (Kind("apps", "statefulsets"),)
_DISTRIBUTED: Final = (Kind("apps", "deployments"), Kind("batch", "jobs"))
_BOOTSTRAP: Final = (
    Kind("rbac.authorization.k8s.io", "roles"),
    Kind("rbac.authorization.k8s.io", "rolebindings"),
)
_SERVICES: Final = ("registry", "ingestion", "storage")
_OPTIONS: Final = (
    Kind("monitoring.coreos.com", "servicemonitors", "the Prometheus operator", "serviceMonitor.enabled"),
    Kind("cert-manager.io", "certificates", "cert-manager", "tls.certManager.enabled"),
    Kind("gateway.networking.k8s.io", "grpcroutes", "the Gateway API", "gatewayApi.grpcRoute.enabled"),
    Kind("kafka.strimzi.io", "kafkas", "the Strimzi operator", "kafka.strimzi.enabled"),
    Kind("k8ssandra.io", "k8ssandraclusters", "the K8ssandra operator", "cassandra.k8ssandra.enabled"),
)


def needs_of(values: Mapping[str, Any]) -> Needs:
    """Reads values as Helm does; what is absent is as the chart has it."""
    distributed = value_at(values, "backend", "embedded") == "distributed"
    kinds = [*_ALWAYS, *(_DISTRIBUTED if distributed else _EMBEDDED)]
    metrics = False
    if value_at(values, "networkPolicy.enabled", True):
        kinds.append(Kind("networking.k8s.io", "networkpolicies"))
    if distributed:
        if not value_at(values, "auth.existingSecret", "") and value_at(
            values, "auth.bootstrap.enabled", True
        ):
            kinds += _BOOTSTRAP
        if any(value_at(values, f"{service}.pdb.enabled", True) for service in _SERVICES):
            kinds.append(Kind("policy", "poddisruptionbudgets"))
        scaled = [
            service for service in _SERVICES if value_at(values, f"{service}.autoscaling.enabled", True)
        ]
        by_keda = [
            service for service in scaled if value_at(values, f"{service}.autoscaling.keda.enabled", False)
        ]
        if by_keda:
            kinds.append(Kind("keda.sh", "scaledobjects", "KEDA", f"{by_keda[0]}.autoscaling.keda.enabled"))
        if len(by_keda) < len(scaled):
            metrics = True
            kinds.append(Kind("autoscaling", "horizontalpodautoscalers"))
    kinds += [kind for kind in _OPTIONS if value_at(values, kind.option, False)]
    volume = not distributed and not value_at(values, "embedded.persistence.existingClaim", "")
    return Needs(kinds, volume, str(value_at(values, "embedded.persistence.storageClass", "") or ""), metrics)


def value_at(values: Mapping[str, Any], path: str, otherwise: object) -> Any:
    """The value at a path such as `image.tag`; `otherwise` where it is absent or null."""
    found: Any = values
    for name in path.split("."):
        if not isinstance(found, Mapping) or found.get(name) is None:
            return otherwise
        found = found[name]
    return found
