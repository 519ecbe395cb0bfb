"""Whose addresses clients are told."""

from pathlib import Path

from tidewire_kit.datadir import open_data_dir
from tidewire_kit.endpoints import Endpoint, add_endpoint
from tidewire_kit.log.port import Member
from tidewire_registry.adapters.platform import LivePlatform


class Log:
    def __init__(self, *addresses: tuple[str, str]) -> None:
        self._members = [
            Member(str(number), service, "host", 1, {"grpc": address}, number)
            for number, (service, address) in enumerate(addresses)
        ]

    def members(self) -> list[Member]:
        return self._members


def test_processes_behind_one_name_are_named_once(tmp_path: Path) -> None:
    log = Log(
        ("ingestion", "tw-ingestion.ns.svc:7002"),
        ("storage", "10.0.0.7:7003"),
        ("ingestion", "tw-ingestion.ns.svc:7002"),
        ("storage", "10.0.0.8:7003"),
        ("ingestion", ""),
    )
    found = LivePlatform(log, open_data_dir(tmp_path)).addresses()  # type: ignore[arg-type]
    assert found == {
        "ingestion": ["tw-ingestion.ns.svc:7002"],
        "storage": ["10.0.0.7:7003", "10.0.0.8:7003"],
    }


def test_who_is_only_in_the_data_directory_is_named_too(tmp_path: Path) -> None:
    data_dir = open_data_dir(tmp_path)
    add_endpoint(data_dir, "storage", Endpoint("127.0.0.1:7003", "", 1))
    found = LivePlatform(Log(("registry", "127.0.0.1:7001")), data_dir).addresses()  # type: ignore[arg-type]
    assert found == {"registry": ["127.0.0.1:7001"], "storage": ["127.0.0.1:7003"]}
