"""Prints the path of a usable uv and installs one into .tools when there is none; scripts/uv calls it.

Standard library only, since it runs before anything is installed. A uv on PATH is used when it is recent enough.
Otherwise the version that uv.lock pins (dependency group `bootstrap`) is installed, in the way that works on most
machines first: with pip, which knows the user's index, proxy and certificates; on a Python without pip (Debian leaves
out pip and ensurepip) the wheel is fetched from the address in the lock and unpacked, a wheel being a zip archive.
Both ways compare the hash in the lock. Nothing needs root and nothing outside .tools is written.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "uv.lock"
TOOLS = ROOT / ".tools"
MINIMUM = (0, 8)  # the first that reads every key we use; pyproject.toml says the same as required-version
TIMEOUT_SECONDS = 300


class BootstrapError(Exception):
    """uv cannot be installed; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The locked version of uv and its wheels, as (address, sha256 in hex)."""

    version: str
    wheels: tuple[tuple[str, str], ...]


def read_pin() -> Pin:
    """Reads version, addresses and hashes of uv from the lock."""
    for package in tomllib.loads(LOCK.read_text())["package"]:
        if package["name"] == "uv":
            wheels = tuple((w["url"], w["hash"].removeprefix("sha256:")) for w in package["wheels"])
            return Pin(package["version"], wheels)
    raise BootstrapError(f"{LOCK.name} pins no uv; restore the dependency group `bootstrap` and lock again")


def version_of(command: str) -> tuple[int, ...] | None:
    """Returns the version of a uv executable, or None when it does not run (a stale shim, say)."""
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"uv (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, match.groups())) if match else None


def tag_patterns() -> list[str]:
    """Returns regular expressions over the platform tag of a wheel, best first, for this machine."""
    machine = {"AMD64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}.get(
        platform.machine(), platform.machine()
    )
    if sys.platform == "darwin":
        return [rf"macosx_\d+_\d+_{'arm64' if machine == 'aarch64' else machine}"]
    if sys.platform == "win32":
        return [{"x86_64": "win_amd64", "aarch64": "win_arm64"}.get(machine, "win32")]
    linux = [rf"musllinux_\d+_\d+_{machine}", rf"manylinux(_\d+_\d+|\d+)_{machine}"]
    return linux[::-1] if platform.libc_ver()[0] == "glibc" else linux[:1]


def choose_wheel(pin: Pin) -> tuple[str, str]:
    """Returns address and hash of the wheel for this machine."""
    for pattern in tag_patterns():
        for url, digest in pin.wheels:
            tags = unquote(urlsplit(url).path).removesuffix(".whl").rsplit("-", 1)[-1]
            if any(re.fullmatch(pattern, tag) for tag in tags.split(".")):
                return url, digest
    raise BootstrapError(
        f"uv {pin.version} has no wheel for {sys.platform} on {platform.machine()}; "
        "install uv by other means and put it on PATH"
    )


def install_with_pip(pin: Pin, target: Path) -> None:
    """Lets pip put uv into a directory of its own; the hashes make it refuse anything but the locked files."""
    hashes = " ".join(f"--hash=sha256:{digest}" for _, digest in pin.wheels)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete_on_close=False) as requirements:
        requirements.write(f"uv=={pin.version} {hashes}\n")
        requirements.close()
        command = [sys.executable, "-m", "pip", "install", "--target", str(target), "-r", requirements.name]
        command += ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        environ = os.environ | {"PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run(command, check=True, stdout=sys.stderr, timeout=TIMEOUT_SECONDS, env=environ)


def install_from_lock(pin: Pin, target: Path) -> None:
    """Fetches the wheel from the address in the lock, compares its hash and unpacks the executable."""
    url, digest = choose_wheel(pin)
    certificates = os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=certificates)
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS, context=context) as response:
        wheel = response.read()
    if hashlib.sha256(wheel).hexdigest() != digest:
        raise BootstrapError(
            f"the wheel fetched from {url} has not the hash in {LOCK.name}; it was thrown away"
        )
    target.mkdir(parents=True, exist_ok=True)
    archive = target / "uv.whl"
    archive.write_bytes(wheel)
    with zipfile.ZipFile(archive) as names:
        member = next(n for n in names.namelist() if re.search(r"\.data/scripts/uv(\.exe)?$", n))
        executable = target / "bin" / Path(member).name
        executable.parent.mkdir(exist_ok=True)
        executable.write_bytes(names.read(member))
    executable.chmod(0o755)
    archive.unlink()


def install(pin: Pin, target: Path) -> None:
    """Installs uv at the target, which comes to exist only when it is complete."""
    TOOLS.mkdir(exist_ok=True)
    print(f"Installing uv {pin.version} into {target.relative_to(ROOT)}", file=sys.stderr)
    problems = []
    for method in (install_with_pip, install_from_lock):
        if method is install_with_pip and importlib.util.find_spec("pip") is None:
            continue
        scratch = Path(tempfile.mkdtemp(dir=TOOLS))
        try:
            method(pin, scratch)
            scratch.chmod(0o755)
            scratch.rename(target)
        except (OSError, subprocess.SubprocessError, urllib.error.URLError, BootstrapError) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if (target / "bin" / "uv").is_file():
                return  # another make was faster
            problems.append(f"  {method.__name__}: {error}")
        else:
            return
    raise BootstrapError(
        "\n".join(["uv could not be installed:", *problems])
        + "\nInstall python3-pip (with your index configured), or put uv itself on PATH, and try again."
    )


def main() -> int:
    """Prints the path of uv; returns the exit status."""
    found = shutil.which("uv")
    if found and (version_of(found) or (0,)) >= MINIMUM:
        print(found)
        return 0
    try:
        pin = read_pin()
        target = TOOLS / f"uv-{pin.version}"
        executable = target / "bin" / "uv"
        if not executable.is_file():
            install(pin, target)
    except (BootstrapError, OSError) as error:
        print(f"get_uv: {error}", file=sys.stderr)
        return 1
    print(executable)
    return 0


if __name__ == "__main__":
    sys.exit(main())
