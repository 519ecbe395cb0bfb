"""Resource names: made from ids here, taken apart here, nowhere else in the SDK.

A full name passes through unchanged, so every method takes an id (`sensor-1`) or a name
(`tenants/demo/devices/sensor-1`).
"""

from tidewire_client.errors import InvalidArgument


def tenant_name(tenant: str) -> str:
    """`tenants/{tenant}` of an id or a name."""
    if not tenant:
        raise InvalidArgument("the tenant is missing; name one", field="tenant")
    return tenant if tenant.startswith("tenants/") else f"tenants/{tenant}"


def device_name(tenant: str, device: str) -> str:
    """`tenants/{tenant}/devices/{device}` of ids or names."""
    if device.startswith("tenants/"):
        return device
    if not device or "/" in device:
        raise InvalidArgument(f"'{device}' is not a device id", field="device")
    return f"{tenant_name(tenant)}/devices/{device}"


def credential_name(tenant: str, device: str, credential: str) -> str:
    """`tenants/{tenant}/devices/{device}/credentials/{credential}` of ids or names."""
    if credential.startswith("tenants/"):
        return credential
    return f"{device_name(tenant, device)}/credentials/{credential}"


def last_segment(name: str) -> str:
    """The id at the end of a resource name."""
    return name.rsplit("/", 1)[-1]
