"""The platform's signing keys as the replica of the registry holds them, by id."""

from tidewire.events.v1.registry_change_pb2 import RegistryChange, SigningKey
from tidewire_kit.directory.views import SigningKeyView, load_public_key


class SigningKeys:
    """Keys of any state of the topic; a lower revision than the one known is ignored."""

    def __init__(self) -> None:
        self._keys: dict[str, SigningKeyView] = {}
        self._dead: dict[str, int] = {}
        """Key → revision of its deletion, which outlives it, so that an older copy does not bring it back."""

    def get(self, key_id: str) -> SigningKeyView | None:
        """Returns a key that is not deleted."""
        return self._keys.get(key_id)

    def apply(self, change: RegistryChange, key: SigningKey) -> tuple[bool, bool]:
        """Returns whether the change was applied, and whether what was known of the key is true no more."""
        held = self._keys.get(key.key_id)
        if change.revision < (held.revision if held else self._dead.get(key.key_id, -1)):
            return False, False
        if change.deleted:
            self._dead[key.key_id] = change.revision
            self._keys.pop(key.key_id, None)
            return True, True
        public_key = load_public_key(key.public_key_pem)
        self._keys[key.key_id] = SigningKeyView(key.key_id, key.algorithm, change.revision, public_key)
        return True, held is not None

    def remove(self, key_id: str) -> bool:
        """Forgets a key without a deletion. Returns whether it was known."""
        return self._keys.pop(key_id, None) is not None
