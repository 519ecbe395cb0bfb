"""The registry with a large fleet: pages of its list, filtered and not, through gRPC on the running platform."""

import statistics
import time
from itertools import batched

import grpc

from benchmarks.figures import Figure, Scale
from benchmarks.whole_platform import TENANT, running_platform
from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc, resources_pb2

PAGE = 100
ASKED = 50
GOAL_MS = 20
TYPES = ("meter", "pump", "valve", "gateway")
FILTERS = {
    "all": "",
    "by label": 'labels.site = "s17"',
    "by type and label prefix": "type = pump AND labels.site = s1*",
    "by state or within a circle": "state = BLOCKED OR within_radius(48, 11, 50000)",
    "of few that match": "labels.serial = 099",
}


def run(scale: Scale) -> list[Figure]:
    """Median time of a first page per kind of filter, the slowest of them as the figure."""
    devices = 100_000 if scale.rounds > 1 else 10_000
    with running_platform() as platform, grpc.insecure_channel(platform.address("registry")) as channel:
        registry, metadata = registry_pb2_grpc.RegistryServiceStub(channel), platform.metadata()
        began = time.perf_counter()
        for numbers in batched(range(devices), 1_000):
            requests = [
                registry_pb2.CreateDeviceRequest(device_id=f"fleet-{n:06d}", device=_device(n))
                for n in numbers
            ]
            registry.BatchCreateDevices(
                registry_pb2.BatchCreateDevicesRequest(parent=TENANT, requests=requests), metadata=metadata
            )
        created = devices / (time.perf_counter() - began)
        took = {}
        for name, text in FILTERS.items():
            request = registry_pb2.ListDevicesRequest(parent=TENANT, filter=text, page_size=PAGE)
            times = []
            for _ in range(ASKED):
                asked = time.perf_counter()
                registry.ListDevices(request, metadata=metadata)
                times.append((time.perf_counter() - asked) * 1000)
            took[name] = statistics.median(times)
    note = "; ".join(f"{name} {ms:.1f}" for name, ms in took.items())
    return [
        Figure(
            f"registry: page of {PAGE} of {devices:,} devices, p50, slowest filter",
            max(took.values()),
            "ms",
            GOAL_MS,
            f"{note}; created at {created:,.0f} devices/s",
            at_most=True,
        )
    ]


def _device(number: int) -> resources_pb2.Device:
    device = resources_pb2.Device(
        type=TYPES[number % len(TYPES)],
        labels={"site": f"s{number % 97}", "serial": f"{number % 1_000:03d}"},
    )
    device.location.latitude = number % 1_800 / 10 - 90
    device.location.longitude = number * 7 % 3_600 / 10 - 180
    return device
