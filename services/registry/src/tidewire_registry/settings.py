"""Settings of the registry service, read once by main; those that all services share are `CommonSettings`."""

from dataclasses import dataclass
from typing import ClassVar

from tidewire_kit.settings import setting


@dataclass(frozen=True, slots=True)
class Settings:
    """What only the registry reads."""

    PREFIX: ClassVar[str] = "TIDEWIRE_REGISTRY_"

    port: int = setting(7001, minimum=0, maximum=65535)
    """Port of the gRPC listener; 0: a free one. Default 7001: the one address that clients know."""

    metrics_port: int = setting(7101, minimum=0, maximum=65535)
    """Port of /metrics, /readyz, /livez and /startupz. 0: a free one."""

    sweep_seconds: float = setting(5.0, minimum=0.1, maximum=60)
    """How often changes whose publishing failed are published again. Default 5: other services then know of a block
    well within the 10 seconds that are promised."""
