"""What the commands do that work on a cluster, apart from their options: `admin bootstrap --kubernetes-secret`."""

import asyncio
import sys

from tidewire_cli.kube.cluster import connect
from tidewire_kit.clock import SystemClock
from tidewire_platform.kube.keys import bootstrap_secret


async def bootstrap_in_secret(name: str, namespace: str, context: str) -> int:
    """Makes the keys' Secret whole and says what was done; returns the exit status. Raises TidewireError."""
    cluster = await asyncio.to_thread(connect, context, namespace)
    try:
        done = await asyncio.to_thread(bootstrap_secret, cluster, name, SystemClock())
    finally:
        cluster.close()
    place = f"Secret {done.namespace}/{done.name}"
    if done.made:
        print(f"{'Created' if done.created else 'Completed'} {place}: made {', '.join(done.made)}")
    else:
        print(f"{place} has everything; nothing to do")
    for token, days in done.ending.items():
        when = f"ends in {days:.0f} days" if days > 0 else "has ended"
        print(
            f"Warning: its {token} {when}; remove that entry from the Secret and run this again to renew it",
            file=sys.stderr,
        )
    return 0
