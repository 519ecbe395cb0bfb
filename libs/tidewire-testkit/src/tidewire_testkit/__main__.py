"""The command of the testkit's image: `ledger TENANT SECONDS` publishes and keeps a ledger, in a pod."""

import asyncio
import sys

from tidewire_testkit.whole.remote import keep_ledger


def main() -> int:
    """Runs the command and returns its exit status."""
    match sys.argv[1:]:
        case ["ledger", tenant, seconds]:
            return asyncio.run(keep_ledger(tenant, float(seconds)))
    print("usage: ledger TENANT SECONDS", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
