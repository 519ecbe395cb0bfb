"""What `tidewire up` reads besides its options and the settings of the services that it starts."""

from dataclasses import dataclass
from typing import ClassVar

from tidewire_kit.settings import setting


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What only `tidewire up` reads."""

    PREFIX: ClassVar[str] = "TIDEWIRE_UP_"

    health_port: int | None = setting(None, minimum=0, maximum=65535)
    """Port of one page of health for all services, on `TIDEWIRE_HOST`: /readyz, /livez and /startupz, for a container's
    probes (with 3 s or more to answer). 0: a free one. Unset: there is none. The option `--health-port` goes first."""
