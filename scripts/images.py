"""Builds the container images and loads them into a cluster; `make images`, `make kind-load` and `make e2e` call it.

`build [NAME...]` uses the first engine whose `info` succeeds (docker, podman, nerdctl), else buildah with chroot
isolation, which needs no daemon and no privileges beyond root. Where the registry of the official base image cannot be
reached, tests/cluster/base-image makes one that stands in for it; BASE_IMAGE names any other. Sizes are printed and
held to the limits below. `relabel --tag TAG [NAME...]` makes other images of those that were built, which differ by
their version label alone: what an upgrade needs without another tree. `load [NAME...]` (of another tag by `--tag TAG`)
puts images into the cluster of the current context: kind, k3d, minikube, or the one of tests/cluster.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHIVES = ROOT / "build" / "images"
STAND_IN = "localhost/tidewire-base:latest"
REPOSITORY = "localhost/tidewire"
ENGINES = ("docker", "podman", "nerdctl")
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Image:
    """An image of ours: the distribution that it holds, and how much it may add to its base, unpacked."""

    package: str
    limit_megabytes: int


IMAGES = {
    "registry": Image("tidewire-registry", 200),
    "ingestion": Image("tidewire-ingestion", 200),
    "storage": Image("tidewire-storage", 400),
    "tidewire": Image("tidewire", 500),
    "testkit": Image("tidewire-testkit", 300),
}
DEFAULT = ("registry", "ingestion", "storage", "tidewire")
"""The testkit is for `make e2e` alone and is not published."""


class ImagesError(Exception):
    """An image cannot be built or loaded; the text says what to do about it."""


def version() -> str:
    """The project's version, which is the images' tag."""
    project: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return project


def reference(name: str, tag: str = "") -> str:
    """An image's full name; without a tag that of this tree."""
    return f"{REPOSITORY}/{name}:{tag or version()}"


def archive_of(name: str, tag: str = "") -> Path:
    """Where an image's archive lies."""
    return ARCHIVES / (f"{name}-{tag}.tar" if tag else f"{name}.tar")


def engine() -> str:
    """docker, podman or nerdctl when one works, else buildah."""
    for command in ENGINES:
        if shutil.which(command) and _succeeds(command, "info"):
            return command
    if shutil.which("buildah"):
        return "buildah"
    raise ImagesError(
        "no container engine works (docker, podman, nerdctl), and there is no buildah; start or install one"
    )


def official_base() -> str:
    """The base image that the Dockerfile names."""
    return (ROOT / "Dockerfile").read_text().partition("\nARG BASE_IMAGE=")[2].splitlines()[0]


def base_image(tool: str) -> str | None:
    """BASE_IMAGE, or None for the Dockerfile's own; the stand-in where that one is out of reach and can be made."""
    if given := os.environ.get("BASE_IMAGE"):
        return given
    official = official_base()
    if tool != "buildah" or _succeeds(tool, "pull", "--quiet", official, seconds=60):
        return None
    print(
        f"cannot pull {official};\nbuilding on {STAND_IN} from Debian's packages instead (BASE_IMAGE chooses)"
    )
    _run(str(ROOT / "tests" / "cluster" / "base-image"))
    return STAND_IN


def build(names: list[str]) -> None:
    """Builds the images one after the other, then prints their sizes. ImagesError when one is larger than it may be."""
    tool = engine()
    base = base_image(tool)
    revision = _output("git", "rev-parse", "HEAD", or_else="unknown")
    for name in names:
        begin = time.monotonic()
        arguments = {
            "PACKAGE": IMAGES[name].package,
            "VERSION": version(),
            "REVISION": os.environ.get("REVISION", revision),
        }
        if base:
            arguments["BASE_IMAGE"] = base
        words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        if tool == "buildah":
            # Reproducible: files and image alike say that they were made at the epoch.
            words += ["--isolation", "chroot", "--layers", "--timestamp", "0"]
        log = ARCHIVES / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        _run(tool, "build", *words, "--tag", reference(name), ".", log=log)
        print(f"{name:10} built with {tool} in {time.monotonic() - begin:.0f} s", flush=True)
    _check_sizes(tool, names, base)


def _check_sizes(tool: str, names: list[str], base: str | None) -> None:
    too_large = []
    for name in names:
        size = _added_bytes(_archive(tool, name), tool, base or official_base())
        limit = IMAGES[name].limit_megabytes
        print(f"{name:10} {size / MEGABYTE:4.0f} MB above its base, unpacked; may be {limit}", flush=True)
        if size > limit * MEGABYTE:
            too_large.append(name)
    if too_large:
        raise ImagesError(f"larger than allowed: {', '.join(too_large)}; see what it depends on")


def _archive(tool: str, name: str, tag: str = "") -> Path:
    """Writes an image into an archive whose layers are not compressed, and returns its path."""
    archive, image = archive_of(name, tag), reference(name, tag)
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    if tool == "buildah":
        _run("buildah", "push", "--quiet", image, f"docker-archive:{archive}:{image}")
    else:
        _run(tool, "save", "--output", str(archive), image)
    return archive


def relabel(names: list[str], tag: str) -> None:
    """Makes `name:tag` of each image that was built before: the same files, another version label, so another image."""
    tool = engine()
    words = ["--isolation", "chroot", "--timestamp", "0"] if tool == "buildah" else []
    with tempfile.TemporaryDirectory() as context:
        for name in names:
            if not archive_of(name).exists():
                raise ImagesError(f"{reference(name)} was not built; run: make images IMAGES={name}")
            lines = (f"FROM {reference(name)}", f'LABEL org.opencontainers.image.version="{tag}"')
            (Path(context) / "Dockerfile").write_text("\n".join(lines))
            log = ARCHIVES / f"{name}-{tag}.log"
            _run(tool, "build", *words, "--tag", reference(name, tag), context, log=log)
            _archive(tool, name, tag)
            print(f"{name:10} is {reference(name, tag)} too", flush=True)


def _added_bytes(archive: Path, tool: str, base: str) -> int:
    """Bytes of the layers that the base has not."""
    if tool == "buildah":
        inspected = json.loads(_output(tool, "inspect", "--type", "image", base))
        below = len(inspected["OCIv1"]["rootfs"]["diff_ids"])
    else:
        below = len(json.loads(_output(tool, "image", "inspect", base))[0]["RootFS"]["Layers"])
    with tarfile.open(archive) as tar:
        (manifest,) = json.loads(_member(tar, "manifest.json"))
        return sum(tar.getmember(layer).size for layer in manifest["Layers"][below:])


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def load(names: list[str], tag: str = "") -> None:
    """Loads images that were built before into the cluster of the current context."""
    context = _output("kubectl", "config", "current-context", or_else="")
    for name in names:
        archive, image = archive_of(name, tag), reference(name, tag)
        if not archive.exists():
            raise ImagesError(f"{image} was not built; run: make images IMAGES={name}")
        _run(*_load_command(context, image, str(archive)))


def _load_command(context: str, image: str, archive: str) -> list[str]:
    if context == "tidewire":
        return [str(ROOT / "tests" / "cluster" / "load-image"), image, archive]
    if context.startswith("kind-"):
        return ["kind", "load", "image-archive", archive, "--name", context.removeprefix("kind-")]
    if context.startswith("k3d-"):
        return ["k3d", "image", "import", archive, "--cluster", context.removeprefix("k3d-")]
    if context == "minikube":
        return ["minikube", "image", "load", archive]
    raise ImagesError(
        f"the current context {context!r} is none of kind-*, k3d-*, minikube, tidewire; "
        "push the images to a registry that the cluster can reach, or `kubectl config use-context`"
    )


def _succeeds(*command: str, seconds: float = 20) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _output(*command: str, or_else: str | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    if or_else is not None:
        return or_else
    raise ImagesError(f"{' '.join(command)}: {done.stderr.strip()}")


def _run(*command: str, log: Path | None = None) -> None:
    """Runs a command in the repository; ImagesError with the end of its log when it fails."""
    if log is None:
        status = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
        tail = ""
    else:
        with log.open("wb") as out:
            status = subprocess.run(
                command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False
            ).returncode
        tail = "\n".join(["", *log.read_text(errors="replace").splitlines()[-30:]])
    if status != 0:
        raise ImagesError(f"{' '.join(command[:3])} failed, exit status {status}{tail}")


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(description="Container images of Tidewire.")
    parser.add_argument("verb", choices=("build", "relabel", "load"))
    parser.add_argument("--tag", default="", help="Another tag than the version, for relabel and load.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(IMAGES))
    arguments = parser.parse_intermixed_args()
    names = arguments.names or list(DEFAULT)
    try:
        if unknown := [name for name in names if name not in IMAGES]:
            raise ImagesError(f"no image called {unknown[0]!r}; there are {', '.join(IMAGES)}")
        match arguments.verb:
            case "build" if arguments.tag:
                raise ImagesError("what is built of this tree has its version as the tag; leave out --tag")
            case "build":
                build(names)
            case "relabel" if not arguments.tag:
                raise ImagesError("relabel needs --tag")
            case "relabel":
                relabel(names, arguments.tag)
            case _:
                load(names, arguments.tag)
    except ImagesError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
