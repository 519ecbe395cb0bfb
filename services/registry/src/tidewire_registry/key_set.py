"""The platform's keys and first tokens as one set of named bytes, for places that are no data directory: a Secret.

Called by `tidewire admin bootstrap --kubernetes-secret`. Pure: what is there goes in, what is missing comes out.
"""

from collections.abc import Mapping
from typing import Final

from tidewire_kit.clock import Clock
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.identity import Role, TokenSigner
from tidewire_registry.bootstrap import TOKEN_SECONDS, new_signing_key, signer_of, token_ends_at

SIGNING_KEY: Final = "signing-key.pem"
SERVICE_TOKEN: Final = "service-token"  # noqa: S105 - the name of an entry
ADMIN_TOKEN: Final = "admin-token"  # noqa: S105 - as above
TOKENS: Final = {
    SERVICE_TOKEN: ("tidewire-service", Role.SERVICE),
    ADMIN_TOKEN: ("admin", Role.PLATFORM_ADMIN),
}
"""Name → (subject, role)."""


def missing_keys(held: Mapping[str, bytes], clock: Clock) -> dict[str, bytes]:
    """Returns what `held` lacks, made to fit what it has; empty when it is whole. Renews nothing.

    Raises FailedPrecondition: SIGNING_KEY_UNUSABLE, or KEYS_MISMATCH when a token is there that the key has not signed
    (also when the key itself is gone), as a platform would start with that and refuse its own calls.
    """
    made: dict[str, bytes] = {}
    if not held.get(SIGNING_KEY):
        orphans = [name for name in TOKENS if held.get(name)]
        if orphans:
            raise _mismatch(f"{' and '.join(orphans)} without the {SIGNING_KEY} that signed them")
        made[SIGNING_KEY] = new_signing_key()
    signer = signer_of(held.get(SIGNING_KEY) or made[SIGNING_KEY], SIGNING_KEY, clock)
    for name, (subject, role) in TOKENS.items():
        token = held.get(name)
        if not token:
            made[name] = signer.sign_user(subject, None, frozenset({role}), TOKEN_SECONDS).token.encode()
        elif token_ends_at(token, signer) is None:
            raise _mismatch(f"a {name} that its {SIGNING_KEY} has not signed")
    return made


def ends_of_tokens(held: Mapping[str, bytes], clock: Clock) -> dict[str, int]:
    """Token's name → unix seconds at which it ends, of those that the key in `held` has signed."""
    if not held.get(SIGNING_KEY):
        return {}
    signer: TokenSigner = signer_of(held[SIGNING_KEY], SIGNING_KEY, clock)
    ends = {name: token_ends_at(held.get(name, b""), signer) for name in TOKENS}
    return {name: end for name, end in ends.items() if end is not None}


def _mismatch(what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the Secret has {what}; restore what belongs to it, or remove those tokens from the Secret and run this again",
        reason="KEYS_MISMATCH",
    )
