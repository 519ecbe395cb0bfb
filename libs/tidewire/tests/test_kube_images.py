"""Images before an installation: which there are, what a node says of them, and the remedies."""

from typing import Any

import pytest

from tidewire_platform.doctor.finding import State
from tidewire_platform.kube.images import Images, cannot_pull, images_of
from tidewire_platform.kube.pulling import judged_late, judged_pod

REFERENCES = ("r.example/t/registry:1", "r.example/t/storage:1")


def test_references_are_put_together_as_the_chart_does() -> None:
    assert images_of({}, "1.2.3") == Images(["tidewire/tidewire:1.2.3"], "IfNotPresent", [])
    image = {
        "registry": "r.example",
        "repository": "a/b",
        "tag": "x",
        "references": {"storage": "s@sha256:0"},
    }
    values = {"backend": "distributed", "image": {**image, "pullSecrets": ["mine"], "pullPolicy": "Always"}}
    parts = [
        "r.example/a/b/registry:x",
        "r.example/a/b/ingestion:x",
        "s@sha256:0",
        "r.example/a/b/tidewire:x",
    ]
    assert images_of(values, "1.2.3") == Images(parts, "Always", ["mine"])
    assert images_of(values, "1.2.3", ["other:1"]).references == ["other:1"]
    assert images_of({"image": {"tag": "", "registry": None}}, "1").references == ["tidewire/tidewire:1"]


@pytest.mark.parametrize(
    ("reason", "message", "told"),
    [
        (
            "ErrImagePull",
            "failed to resolve reference: dial tcp: lookup r.example: no such host",
            "nodes reach",
        ),
        ("ImagePullBackOff", "pull access denied, repository does not exist", "image.pullSecrets"),
        ("ErrImagePull", "unexpected status: 401 Unauthorized", "image.pullSecrets"),
        ("ErrImagePull", "r.example/t/storage:1: not found", "push the image"),
        ("ErrImagePull", "no match for platform in manifest: not found", "processor"),
        ("ErrImagePull", "tls: failed to verify certificate: x509: unknown authority", "trust the registry"),
        ("ErrImageNeverPull", "Container image is not present with pull policy of Never", "IfNotPresent"),
        ("InvalidImageName", "couldn't parse image name", "small letters"),
        ("ErrImagePull", "", "image.registry"),
    ],
)
def test_the_remedy_fits_what_the_node_says(reason: str, message: str, told: str) -> None:
    found = cannot_pull("pod", "r.example/t/storage:1", reason, message)

    assert found.state is State.WRONG
    assert told in found.remedy
    assert (message or reason) in found.text


def pod(*states: dict[str, Any], **status: Any) -> dict[str, Any]:
    statuses = [{"name": f"image-{number}", "state": state} for number, state in enumerate(states)]
    return {"metadata": {"name": "p"}, "status": {"containerStatuses": statuses, **status}}


ENDED = {"terminated": {"exitCode": 0, "reason": "Completed"}}
PULLING = {"waiting": {"reason": "ContainerCreating"}}
FAILED = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}


def test_nothing_is_said_before_all_is_known() -> None:
    assert judged_pod({"metadata": {"name": "p"}}, REFERENCES) is None
    assert judged_pod(pod(PULLING, ENDED), REFERENCES) is None
    assert judged_pod(pod({"running": {}}, ENDED), REFERENCES) is None
    found = judged_pod(pod(FAILED, ENDED), REFERENCES)
    assert found is not None
    assert [one.state for one in found] == [State.WRONG, State.OK]
    assert [one.subject for one in found] == list(REFERENCES)


def test_an_image_of_something_else_is_told() -> None:
    strange = {
        "terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file or directory"}
    }
    other = {"terminated": {"exitCode": 255}}
    found = judged_pod(pod(strange, other), REFERENCES)
    assert found is not None
    assert "no such file" in found[0].text
    assert "status 255" in found[1].text
    assert all("an image of Tidewire" in one.remedy for one in found)


def test_when_time_is_over_it_says_what_is_known() -> None:
    first, second = judged_late(pod(PULLING, ENDED), REFERENCES, 300)
    assert (first.state, second.state) == (State.WARNING, State.OK)
    assert "300 s" in first.text
    unfit = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes: taints",
    }
    (found,) = judged_late(pod(conditions=[unfit]), REFERENCES, 300)
    assert found.state is State.WRONG
    assert "taints" in found.text
