"""The data directory: created, versioned, refused with a remedy; and the endpoints in it."""

import json
import os
import stat
from pathlib import Path

import pytest

from tidewire_kit.datadir import FORMAT_VERSION, open_data_dir, write_private
from tidewire_kit.endpoints import Endpoint, add_endpoint, read_endpoints, remove_endpoint
from tidewire_kit.errors import FailedPrecondition


def test_it_is_created_and_opened_again(tmp_path: Path) -> None:
    data_dir = open_data_dir(tmp_path / "a" / "b")
    assert (data_dir.root / "VERSION").read_text() == f"{FORMAT_VERSION}\n"
    assert all(path.is_dir() for path in (data_dir.log, data_dir.registry, data_dir.storage, data_dir.run))
    assert stat.S_IMODE(data_dir.keys.stat().st_mode) == 0o700
    assert open_data_dir(tmp_path / "a" / "b") == data_dir


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("99\n")
    with pytest.raises(FailedPrecondition, match="format 99") as caught:
        open_data_dir(tmp_path)
    assert caught.value.reason == "FORMAT_NEWER"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["VERSION"]


@pytest.mark.parametrize("make", ["words", "no version"])
def test_something_else_is_refused(tmp_path: Path, make: str) -> None:
    if make == "words":
        (tmp_path / "VERSION").write_text("one")
    else:
        (tmp_path / "log").mkdir()
    with pytest.raises(FailedPrecondition) as caught:
        open_data_dir(tmp_path)
    assert caught.value.reason == "DATA_DIR_FOREIGN"


def test_not_writable_names_directory_and_setting(tmp_path: Path) -> None:
    # A file in the way fails for every user, root included.
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="TIDEWIRE_DATA_DIR") as caught:
        open_data_dir(tmp_path / "file" / "data")
    assert caught.value.reason == "DATA_DIR_NOT_WRITABLE"
    assert str(tmp_path / "file" / "data") in caught.value.message


def test_private_files_are_private(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"one")
    write_private(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_endpoints_come_and_go_and_dead_ones_are_dropped(tmp_path: Path) -> None:
    data_dir = open_data_dir(tmp_path)
    assert read_endpoints(data_dir) == {}
    mine = Endpoint("127.0.0.1:7001", "127.0.0.1:7101", os.getpid())
    parent = Endpoint("127.0.0.1:7011", "", os.getppid())
    dead = Endpoint("127.0.0.1:7002", "", 2**22 - 1)  # above any pid that the kernel gives by default
    for endpoint in (mine, parent, dead):
        add_endpoint(data_dir, "registry", endpoint)
    add_endpoint(data_dir, "storage", mine)
    assert read_endpoints(data_dir) == {"registry": [mine, parent], "storage": [mine]}
    remove_endpoint(data_dir, "registry", mine)
    remove_endpoint(data_dir, "storage", mine)
    assert read_endpoints(data_dir) == {"registry": [parent]}
    assert json.loads(data_dir.endpoints_file.read_text())["registry"][0]["address"] == "127.0.0.1:7011"


def test_a_restart_on_the_same_address_replaces(tmp_path: Path) -> None:
    data_dir = open_data_dir(tmp_path)
    add_endpoint(data_dir, "registry", Endpoint("127.0.0.1:7001", "", os.getppid()))
    add_endpoint(data_dir, "registry", Endpoint("127.0.0.1:7001", "", os.getpid()))
    assert [endpoint.pid for endpoint in read_endpoints(data_dir)["registry"]] == [os.getpid()]


def test_a_damaged_endpoints_file_is_an_empty_one(tmp_path: Path) -> None:
    data_dir = open_data_dir(tmp_path)
    data_dir.endpoints_file.write_text("{")
    assert read_endpoints(data_dir) == {}
