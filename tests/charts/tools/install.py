"""Installs what the tests of the chart need, outside the tree: Helm, kubeconform, kube-score, the schemas of all kinds.

`make test-kube` runs it first; it does nothing when all is there. Everything comes from Go's and Python's package
registries at fixed versions with checked sums: the tools are built of Go modules (helm/, score/), Kubernetes' own
schemas come in a Python package (requirements.txt), those of other operators' kinds in their Go modules. Needs Go.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
KUBERNETES_VERSION = "1.36.0"
LAYOUT = 1
"""Raised when this program makes something else of the same versions."""

BUILDS = {
    "helm": ("helm.sh/helm/v4/cmd/helm", "github.com/yannh/kubeconform/cmd/kubeconform"),
    "score": ("github.com/zegl/kube-score/cmd/kube-score",),
}
"""Folder with go.mod and go.sum → commands to build. Apart, because they need other versions of the same modules."""

CUSTOM_KINDS = (
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        ("example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",),
    ),
    (
        "github.com/kedacore/keda/v2@v2.21.0",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        (
            "config/crd/bases/keda.sh_scaledobjects.yaml",
            "config/crd/bases/keda.sh_triggerauthentications.yaml",
        ),
    ),
    (
        "github.com/cert-manager/cert-manager@v1.21.2",
        "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        ("deploy/crds/cert-manager.io_certificates.yaml",),
    ),
    (
        "sigs.k8s.io/gateway-api@v1.5.0",
        "h1:duoo14Ky/fJXpjpmyMISE2RTBGnfCg8zICfTYLTnBJA=",
        ("config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",),
    ),
)
"""Go module, its sum, and the files in it that define kinds which the chart makes."""

_REFERENCE = re.compile(r'"(?:/api/_definitions\.json)?#/\$defs/([^"]+)"')

WITHOUT_SCHEMA = {
    "Kafka": "Strimzi is published for Maven as Java classes, without the schema",
    "KafkaNodePool": "as Kafka",
    "KafkaUser": "as Kafka",
    "K8ssandraCluster": "the Go module of its operator is in no registry that this project may use",
}
"""Kinds that no package registry has a schema of, and why. test_servers.py says field by field what they are."""


def home() -> Path:
    """The directory of this state of the tools: another version lies beside it."""
    digest = hashlib.sha256(repr((LAYOUT, KUBERNETES_VERSION, CUSTOM_KINDS)).encode())
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and path.suffix in {".mod", ".sum", ".txt"}:
            digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tidewire-kube" / digest.hexdigest()[:16]


def run(*command: str, cwd: Path = HERE) -> str:
    """Runs a command at low priority and returns its output; its errors end this program."""
    environ = os.environ | {"GOFLAGS": "-mod=readonly -trimpath -buildvcs=false", "CGO_ENABLED": "0"}
    environ |= {"GOWORK": "off"}
    done = subprocess.run(
        ["nice", *command], cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}; see above")
    return done.stdout


def build(target: Path) -> None:
    """Builds the tools into `target`/bin."""
    (target / "bin").mkdir()
    for folder, commands in BUILDS.items():
        run("go", "build", "-ldflags=-s -w", "-o", f"{target}/bin/", *commands, cwd=HERE / folder)


def kubernetes_schemas(target: Path) -> None:
    """Puts the strict schema of each of Kubernetes' kinds below `target`/kinds, as kubeconform looks for them."""
    with tempfile.TemporaryDirectory() as folder:
        uv = ("pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:")
        run(
            str(ROOT / "scripts/uv"), *uv, "--target", folder, "--requirement", str(HERE / "requirements.txt")
        )
        below = (
            Path(folder) / f"kubernetes_validate/kubernetes-json-schema/v{KUBERNETES_VERSION}-local-strict"
        )
        definitions = json.loads((below / "_definitions.json").read_text())["$defs"]
        (target / "kinds").mkdir()
        for path in below.glob("[a-z]*.json"):
            schema = json.loads(path.read_text())
            if "x-kubernetes-group-version-kind" in schema:
                (target / "kinds" / path.name).write_text(alone(schema, definitions))


def alone(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The text of a schema with all that it refers to, as little as that is: so it is read fast, and from anywhere."""
    kept: dict[str, Any] = {}
    text = json.dumps({key: value for key, value in schema.items() if key != "$id"})
    names = set(_REFERENCE.findall(text))
    while names:
        name = names.pop()
        kept[name] = definitions[name]
        names |= set(_REFERENCE.findall(json.dumps(kept[name]))) - kept.keys()
    whole = json.dumps({**json.loads(text), "$defs": kept})
    return whole.replace("/api/_definitions.json#/$defs/", "#/$defs/")


def custom_schemas(target: Path) -> None:
    """Makes the strict schemas of other operators' kinds of their definitions, below `target`/kinds/GROUP."""
    for module, expected, names in CUSTOM_KINDS:
        found = json.loads(run("go", "mod", "download", "-json", module, cwd=target))
        if found["Sum"] != expected:
            sys.exit(f"{module} has the sum {found['Sum']}, not {expected}")
        for name in names:
            definition = yaml.safe_load((Path(found["Dir"]) / name).read_text())
            group, kind = definition["spec"]["group"], definition["spec"]["names"]["kind"].lower()
            (target / "kinds" / group).mkdir(exist_ok=True)
            for version in definition["spec"]["versions"]:
                made = strict(version["schema"]["openAPIV3Schema"])
                (target / "kinds" / group / f"{kind}_{version['name']}.json").write_text(json.dumps(made))


def strict(schema: Any) -> Any:
    """The schema with unknown members refused wherever it names the known ones, as the API server prunes them."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # What stands under these only narrows members that are named elsewhere.
    narrowing = ("allOf", "anyOf", "oneOf", "not")
    made = {key: value if key in narrowing else strict(value) for key, value in schema.items()}
    names = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if (
        names
        and "additionalProperties" not in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        made["additionalProperties"] = False
    return made


def main() -> None:
    """Installs into a directory beside the final one and moves it there when all has worked."""
    final = home()
    if final.exists():
        return
    if shutil.which("go") is None:
        sys.exit(
            "the tests of the chart build their tools with Go: install Go 1.26 or newer, as `go` on PATH"
        )
    print(
        f"Building Helm, kubeconform and kube-score into {final}; the first time takes some minutes",
        flush=True,
    )
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent) as folder:
        target = Path(folder) / "new"
        target.mkdir()
        kubernetes_schemas(target)
        custom_schemas(target)
        build(target)
        if not final.exists():
            target.rename(final)


if __name__ == "__main__":
    main()
