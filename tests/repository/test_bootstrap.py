"""The two scripts that run before anything is installed, on machines unlike this one."""

import hashlib
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import get_uv

ROOT = Path(__file__).resolve().parents[2]


def find_python(home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs scripts/find-python with a PATH that has the shell's tools but no Python."""
    tools = home / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("sh", "ls", "sort", "cat"):
        if not (tools / name).exists():
            (tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    clean = {"PATH": str(tools), "HOME": str(home), **environ}
    command = ["/bin/sh", str(ROOT / "scripts" / "find-python")]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False)


def make_python(path: Path, minor: int) -> Path:
    """Writes a stand-in that answers as Python 3.<minor> would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = "1" if minor < 12 else "0"
    path.write_text(f'#!/bin/sh\ncase "$2" in *version_info*) exit {old};; *) echo {path};; esac\n')
    path.chmod(0o755)
    return path


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    done = find_python(tmp_path)

    assert done.returncode == 1
    assert "apt install python3" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_an_old_python_is_passed_over(tmp_path: Path) -> None:
    make_python(tmp_path / "tools" / "python3", 11)

    assert find_python(tmp_path).returncode == 1


def test_a_broken_shim_on_path_does_not_hide_pyenv(tmp_path: Path) -> None:
    shim = tmp_path / "tools" / "python3.13"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    make_python(tmp_path / ".pyenv/versions/3.12.9/bin/python", 12)
    make_python(tmp_path / ".pyenv/versions/3.13.2/bin/python", 13)
    make_python(tmp_path / ".pyenv/versions/3.13.0/bin/python", 13)
    newest = make_python(tmp_path / ".pyenv/versions/3.13.10/bin/python", 13)

    assert find_python(tmp_path).stdout.strip() == str(newest)


def test_pyenv_root_is_honoured(tmp_path: Path) -> None:
    there = make_python(tmp_path / "elsewhere/versions/3.12.1/bin/python", 12)

    assert find_python(tmp_path, PYENV_ROOT=str(tmp_path / "elsewhere")).stdout.strip() == str(there)


def test_a_python_named_by_the_user_is_used_or_refused_by_name(tmp_path: Path) -> None:
    good = make_python(tmp_path / "mine", 13)

    assert find_python(tmp_path, PYTHON=str(good)).stdout.strip() == str(good)
    refused = find_python(tmp_path, PYTHON="/no/such/python")
    assert refused.returncode == 1
    assert "/no/such/python" in refused.stderr


STORES = ("certs/ca-certificates.crt", "../pki/tls/certs/ca-bundle.crt", "ca-bundle.pem", "cert.pem")


@pytest.mark.parametrize(
    ("version", "given", "expected"),
    [
        ("0.13.8", {}, "UV_SYSTEM_CERTS=true"),
        ("0.8.4", {}, "UV_NATIVE_TLS=true"),
        ("0.13.8", {"UV_SYSTEM_CERTS": "false"}, "UV_SYSTEM_CERTS=false"),
    ],
)
def test_uv_trusts_the_certificates_of_the_machine_unless_told_otherwise(
    tmp_path: Path, version: str, given: dict[str, str], expected: str
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\ncase "$*" in --version) echo uv {version};; *) env;; esac\n')
    uv.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": sys.executable, **given}

    done = subprocess.run([ROOT / "scripts" / "uv"], env=environ, capture_output=True, text=True, check=True)

    told = [line for line in done.stdout.splitlines() if "CERTS" in line or "TLS" in line]
    has_store = any(Path("/etc/ssl", name).exists() for name in STORES)
    assert told == ([expected] if has_store or given else [])


def test_the_lock_pins_uv_with_hashes_for_common_machines() -> None:
    pin = get_uv.read_pin()
    names = " ".join(url for url, _ in pin.wheels)

    assert get_uv.version_of(str(ROOT / ".tools" / f"uv-{pin.version}" / "bin" / "uv")) in {
        None,
        version(pin),
    }
    assert version(pin) >= get_uv.MINIMUM
    assert all(len(digest) == 64 for _, digest in pin.wheels)
    for tag in ("manylinux_2_17_x86_64", "musllinux_1_1_x86_64", "macosx_11_0_arm64"):
        assert tag in names


def version(pin: get_uv.Pin) -> tuple[int, ...]:
    return tuple(map(int, pin.version.split(".")))


@pytest.mark.parametrize(
    ("system", "machine", "libc", "expected"),
    [
        ("linux", "x86_64", "glibc", "manylinux_2_17_x86_64.manylinux2014_x86_64"),
        ("linux", "x86_64", "", "musllinux_1_1_x86_64"),
        ("linux", "aarch64", "glibc", "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64"),
        ("darwin", "arm64", "", "macosx_11_0_arm64"),
    ],
)
def test_the_wheel_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, libc: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))

    assert get_uv.choose_wheel(get_uv.read_pin())[0].endswith(f"-py3-none-{expected}.whl")


def fake_wheel(tmp_path: Path) -> Path:
    wheel = tmp_path / "uv-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("uv-9.9.9.data/scripts/uv", "#!/bin/sh\necho uv 9.9.9\n")
    return wheel


def test_the_wheel_is_unpacked_when_its_hash_is_the_locked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = fake_wheel(tmp_path)
    chosen = (wheel.as_uri(), hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(get_uv, "choose_wheel", lambda pin: chosen)

    get_uv.install_from_lock(get_uv.Pin("9.9.9", (chosen,)), tmp_path / "target")

    assert get_uv.version_of(str(tmp_path / "target" / "bin" / "uv")) == (9, 9, 9)


def test_a_wheel_with_another_hash_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (fake_wheel(tmp_path).as_uri(), "0" * 64)
    monkeypatch.setattr(get_uv, "choose_wheel", lambda pin: chosen)

    with pytest.raises(get_uv.BootstrapError, match="has not the hash"):
        get_uv.install_from_lock(get_uv.Pin("9.9.9", (chosen,)), tmp_path / "target")
    assert not os.path.exists(tmp_path / "target")
