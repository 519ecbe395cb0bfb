"""How a bucket of an object store is opened by obstore, for backups and for the cold tier of storage.

Endpoint, region and credentials come from the environment alone, by the names that all S3 tools know.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

HINT = "check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
_SAID = re.compile(r"<Code>(\w+)</Code>.*?<Message>([^<]{1,300})", re.DOTALL)


def bucket_options(
    environ: Mapping[str, str], *, timeout_seconds: float, retries: int, retry_seconds: float
) -> dict[str, Any]:
    """What obstore's `S3Store` takes besides the bucket."""
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    options: dict[str, str] = {"region": environ.get("AWS_REGION") or "us-east-1"}
    if endpoint:
        options["endpoint"] = endpoint
    for option, variable in (
        ("access_key_id", "AWS_ACCESS_KEY_ID"),
        ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("session_token", "AWS_SESSION_TOKEN"),
    ):
        if value := environ.get(variable):
            options[option] = value
    return {
        "config": options,
        "client_options": {
            "allow_http": endpoint.startswith("http://"),
            "timeout": timedelta(seconds=timeout_seconds),
        },
        "retry_config": {"max_retries": retries, "retry_timeout": timedelta(seconds=retry_seconds)},
    }


def why_of(error: Exception) -> str:
    """What the server said, in one line; else the client's words. Neither holds a credential."""
    text = str(error)
    if said := _SAID.search(text):
        return f"{said[1]}, {said[2].strip().rstrip('.')}"
    return text.strip().partition("\n")[0][:300]
