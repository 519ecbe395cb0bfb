"""Lists of device ids that publishers send again and again, remembered by their bytes.

`wire` asks whether a known list stands at a position of a message, and gets the same Python list each time, so that
ingestion can remember what it found out about it. Bounded in bytes; what was learnt first goes first.
"""

_MAX_BYTES = 32 << 20
_MAX_ENTRY_BYTES = 1 << 20
_KEY_BYTES = 64
_ALIKE = 64
"""Lists with the same beginning that are kept beside one another."""
_OBJECT_BYTES = 80
"""About what a device id takes as a Python object."""

_Entry = tuple[bytes, list[str]]


class DeviceLists:
    """Bytes of the field `devices` → list of ids. Nobody changes the lists."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._known: dict[bytes, list[_Entry]] = {}
        """First bytes → the lists that begin so."""

    def match(self, raw: bytes, at: int) -> tuple[list[str] | None, int]:
        """(ids, position behind them) when the bytes from `at` on begin with a known list, else (None, `at`)."""
        for section, names in self._known.get(raw[at : at + _KEY_BYTES], ()):
            if raw.startswith(section, at):
                return names, at + len(section)
        return None, at

    def learn(self, section: bytes, names: list[str]) -> None:
        """Remembers that `section`, the field `devices` and nothing else, stands for `names`."""
        size = _size((section, names))
        if len(section) < _KEY_BYTES or size > _MAX_ENTRY_BYTES:
            return
        alike = self._known.setdefault(section[:_KEY_BYTES], [])
        if any(known == section for known, _ in alike):
            return
        # The longest first: of two lists that both stand there the shorter one would leave a rest.
        alike.append((section, names))
        alike.sort(key=_size, reverse=True)
        self._held_bytes += size
        if len(alike) > _ALIKE:
            self._held_bytes -= _size(alike.pop())
        while self._held_bytes > self._max_bytes:
            for entry in self._known.pop(next(iter(self._known))):
                self._held_bytes -= _size(entry)


def _size(entry: _Entry) -> int:
    section, names = entry
    return 2 * len(section) + _OBJECT_BYTES * len(names)
