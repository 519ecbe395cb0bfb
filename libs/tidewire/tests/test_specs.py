from pathlib import Path

from tidewire_platform.specs import PlatformOptions, process_environment, process_specs


def test_the_first_process_of_a_service_has_the_known_ports_and_the_others_free_ones() -> None:
    specs = process_specs(PlatformOptions(Path("d"), ingestion_processes=2))
    assert [(spec.name, spec.port, spec.metrics_port) for spec in specs] == [
        ("registry", 7001, 7101),
        ("ingestion-1", 7002, 7102),
        ("ingestion-2", 0, 0),
        ("storage", 7003, 7103),
    ]


def test_free_ports_are_free_for_all() -> None:
    specs = process_specs(PlatformOptions(Path("d"), free_ports=True, storage_processes=2))
    assert {(spec.port, spec.metrics_port) for spec in specs} == {(0, 0)}
    assert [spec.name for spec in specs] == ["registry", "ingestion", "storage-1", "storage-2"]


def test_a_named_port_counts_also_beside_free_ones() -> None:
    options = PlatformOptions(Path("d"), free_ports=True, ports={"storage": (None, 9103)})
    assert options.ports_of("storage") == (0, 9103)
    assert options.ports_of("registry") == (0, 0)


def test_a_service_is_told_its_own_settings_and_nothing_that_is_meant_for_clients() -> None:
    caller = {
        "PATH": "/bin",
        "TIDEWIRE_TOKEN": "secret",
        "TIDEWIRE_ENDPOINT": "far.example:7001",
        "TIDEWIRE_LOG_LEVEL": "debug",
        "TIDEWIRE_LOG_FORMAT": "console",
    }
    [registry, *_] = process_specs(PlatformOptions(Path("/data"), ports={"registry": (9001, None)}))
    environ = process_environment(registry, Path("/data"), caller)
    assert environ["TIDEWIRE_DATA_DIR"] == "/data"
    assert environ["TIDEWIRE_REGISTRY_PORT"] == "9001"
    assert environ["TIDEWIRE_REGISTRY_METRICS_PORT"] == "7101"
    assert environ["TIDEWIRE_LOG_LEVEL"] == "debug"
    assert environ["TIDEWIRE_LOG_FORMAT"] == "json"
    assert not {"TIDEWIRE_TOKEN", "TIDEWIRE_ENDPOINT"} & environ.keys()
    assert "secret" not in environ.values()
