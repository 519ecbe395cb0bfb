"""Which images an installation runs, read from the values, and what to do when a node cannot get one.

Pure. `pulling` asks a node about them before an installation, `installed` tells of the pods of a release.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidewire_platform.doctor.finding import Finding, wrong
from tidewire_platform.kube.needs import value_at

PULL_FAILURES: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
)
"""What a container waits for that will not get its image."""
_DISTRIBUTED: Final = ("registry", "ingestion", "storage", "tidewire")
_NAME: Final = "image.registry, image.repository and image.tag"
_DENIED: Final = (
    f"see that {_NAME} are right, as registries deny what they do not have; if they are, name a Secret with "
    "credentials in image.pullSecrets (`kubectl create secret docker-registry`)"
)
_UNREACHABLE: Final = (
    f"see that the nodes reach this registry; where it is not the one you mean, correct {_NAME}; or load the image "
    "into the nodes (`make kind-load`)"
)
_REMEDIES: Final = (
    (("no match for platform",), "build the image for the nodes' kind of processor too"),
    (
        ("certificate", "x509", "server gave http response"),
        "let the nodes' container runtime trust the registry, which is set up on the nodes and not here",
    ),
    (("unauthorized", "authentication required", "authorization failed", "denied", "forbidden"), _DENIED),
    (
        ("not found", "manifest unknown", "name unknown", "does not exist"),
        f"correct {_NAME}, or push the image there (`make images` builds it)",
    ),
    (("no such host", "connection refused", "timeout", "timed out", "unreachable", "no route"), _UNREACHABLE),
)
_OTHERWISE: Final = (
    f"correct {_NAME}, name a Secret in image.pullSecrets, or load the image into the nodes "
    "(`make kind-load`)"
)


@dataclass(frozen=True, slots=True)
class Images:
    """What the pods of a release say of their images."""

    references: Sequence[str]
    pull_policy: str
    pull_secrets: Sequence[str]


def images_of(values: Mapping[str, Any], version: str, given: Sequence[str] = ()) -> Images:
    """Puts references together as the chart of this `version` does; those that are `given` instead, if any are."""
    distributed = value_at(values, "backend", "embedded") == "distributed"
    packages = _DISTRIBUTED if distributed else ("tidewire",)
    secrets = [str(name) for name in value_at(values, "image.pullSecrets", ())]
    references = list(given) or [_reference(values, package, version) for package in packages]
    return Images(references, str(value_at(values, "image.pullPolicy", "IfNotPresent")), secrets)


def _reference(values: Mapping[str, Any], package: str, version: str) -> str:
    whole = value_at(values, f"image.references.{package}", "")
    if whole:
        return str(whole)
    registry, tag = value_at(values, "image.registry", ""), value_at(values, "image.tag", "") or version
    path = f"{value_at(values, 'image.repository', 'tidewire')}/{package}:{tag}"
    return f"{registry}/{path}" if registry else path


def cannot_pull(subject: str, image: str, reason: str, message: str) -> Finding:
    """The finding for a container that waits for `reason`, one of PULL_FAILURES, with what fits what the node says."""
    if reason == "InvalidImageName":
        remedy = f"correct {_NAME}: a reference is written registry/repository/package:tag, in small letters"
    elif reason == "ErrImageNeverPull":
        remedy = "load the image into the nodes (`make kind-load`), or set image.pullPolicy to IfNotPresent"
    else:
        said = message.lower()
        fitting = (remedy for words, remedy in _REMEDIES if any(word in said for word in words))
        remedy = next(fitting, _OTHERWISE)
    return wrong("image", subject, f"the node cannot get {image}: {message or reason}", remedy)
