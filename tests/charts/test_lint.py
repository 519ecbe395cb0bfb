"""Every combination of values passes Helm's linter, kubeconform and kube-score, strictly."""

from typing import Any

UNSUITABLE = {
    "container-image-pull-policy": "tags are versions and never move; Always would need the registry at each start",
    "container-ephemeral-storage-request-and-limit": "each emptyDir has its own limit, and there is nothing else",
    "deployment-has-host-podantiaffinity": "topology spread constraints do it, and leave room on small clusters",
    "statefulset-has-host-podantiaffinity": "there is one pod",
}
"""Check of kube-score → why we do not follow it. Limits of processor time are left out too: they slow what has room."""


def test_helm_lint_has_nothing_to_say(combination: str, objects: Any) -> None:
    values = objects.chart / "ci" / f"{combination}-values.yaml"

    done = objects.tool("helm", "lint", "--strict", "--quiet", str(objects.chart), "--values", str(values))

    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


def kubeconform(objects: Any, text: str, *options: str) -> Any:
    kinds = objects.tools.home() / "kinds"
    command = (
        "-strict",
        "-summary",
        "-output",
        "text",
        "-kubernetes-version",
        objects.tools.KUBERNETES_VERSION,
    )
    places = (f"{kinds}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",)
    places += (f"{kinds}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json",)
    locations = [part for place in places for part in ("-schema-location", place)]
    return objects.tool("kubeconform", *command, *locations, *options, "-", stdin=text)


def test_every_manifest_fits_its_kind(combination: str, objects: Any) -> None:
    without = objects.tools.WITHOUT_SCHEMA

    done = kubeconform(objects, objects.text(combination), "-skip", ",".join(without))

    assert done.returncode == 0, done.stdout
    skipped = sum(f"kind: {kind}\n" in objects.text(combination) for kind in without)
    assert f"Invalid: 0, Errors: 0, Skipped: {skipped}" in done.stdout


def test_an_unknown_field_of_any_kind_would_be_found(objects: Any) -> None:
    for combination in ("distributed-keda", "distributed-tls", "embedded-full", "distributed"):
        text = objects.text(combination).replace("\nspec:\n", "\nspec:\n  misspelt: true\n")

        done = kubeconform(objects, text)

        found = [line for line in done.stdout.splitlines() if "misspelt" in line]
        assert len(found) == objects.text(combination).count("\nspec:\n"), done.stdout


def test_kube_score_finds_nothing(combination: str, objects: Any) -> None:
    options = ("--ignore-container-cpu-limit", "--ignore-test", ",".join(UNSUITABLE), "--output-format", "ci")

    done = objects.tool("kube-score", "score", *options, "-", stdin=objects.text(combination))

    found = [line for line in done.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    allowed = []
    if "kind: ScaledObject" in objects.text(combination):
        allowed.append("Deployment few replicas")  # it knows no other autoscaler than the HPA
    if combination == "one-broker":  # as small as it can be, on purpose
        allowed += ["NetworkPolicy", "PodDisruptionBudget", "few replicas", "TopologySpread"]
    found = [line for line in found if not any(text in line for text in allowed)]
    assert found == []
