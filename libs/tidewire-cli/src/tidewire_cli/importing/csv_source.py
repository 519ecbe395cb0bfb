"""CSV files as blocks of whole lines: how they are written, opened (also compressed), cut, and taken up again.

A block is cut at a line end that is not within quotes; its byte offset is where a later run resumes.
"""

import codecs
import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tidewire_cli.importing.plan import Dialect
from tidewire_client import InvalidArgument

BLOCK_BYTES = 4 * 1024 * 1024
SAMPLE_BYTES = 512 * 1024
_DELIMITERS = ",;\t|"
_LONGEST_QUOTED = 8 * BLOCK_BYTES
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Whole lines of a file, in UTF-8.

    Attributes:
        data: the bytes.
        first_line: number of the first line in the file, from 1.
        next_offset: byte after the last line, in the (uncompressed) file.
        next_line: number of the line after the last one.
    """

    data: bytes
    first_line: int
    next_offset: int
    next_line: int


def open_bytes(path: Path) -> io.BufferedIOBase | pa.NativeFile:
    """Opens the file for reading its uncompressed bytes. Raises InvalidArgument when it cannot be opened."""
    try:
        if path.suffix.lower() in COMPRESSED:
            return pa.input_stream(str(path), compression="detect")
        return path.open("rb")
    except OSError as error:
        raise InvalidArgument(
            f"{path} cannot be read: {error.strerror or error}", field="file", reason="FILE_UNREADABLE"
        ) from error


def read_sample(path: Path) -> tuple[bytes, bool]:
    """The file's first whole lines, and whether that is all of it."""
    try:
        with open_bytes(path) as file:
            data = file.read(SAMPLE_BYTES + 1)
    except OSError as error:  # of a compressed file, which opens whatever it holds
        raise InvalidArgument(
            f"{path} cannot be read: {error}", field="file", reason="FILE_UNREADABLE"
        ) from error
    if len(data) <= SAMPLE_BYTES:
        return data, True
    end = data.rfind(b"\n") + 1
    if not end:
        raise InvalidArgument(
            f"{path}: the first line is longer than {SAMPLE_BYTES:,} bytes; is this a CSV file?", field="file"
        )
    return data[:end], False


def sniff(path: Path, sample: bytes, encoding: str = "") -> tuple[Dialect, list[list[str]]]:
    """Finds out how the file is written. Returns that and the sample's rows, the headings first.

    Raises InvalidArgument when the encoding is not known or the file has no headings.
    """
    if b"\0" in sample[:4096] and not encoding:
        raise InvalidArgument(
            f"{path} is not a text file; CSV and Parquet files can be imported", field="file"
        )
    encoding = encoding or ("utf-8-sig" if sample.startswith(codecs.BOM_UTF8) else _encoding(sample))
    try:
        text = sample.decode(encoding)
    except (LookupError, UnicodeDecodeError) as error:
        known = isinstance(error, UnicodeDecodeError)
        raise InvalidArgument(
            f"{path} is not written in {encoding}; name its --encoding"
            if known
            else f"--encoding: '{encoding}' is not known; write utf-8, latin-1 or cp1252, for example",
            field="encoding",
        ) from error
    lines = text.splitlines()
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].startswith("#")):
        skipped += 1
    if skipped == len(lines):
        raise InvalidArgument(f"{path} is empty", field="file")
    counts = {mark: lines[skipped].count(mark) for mark in _DELIMITERS}
    delimiter = max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","
    rows = list(csv.reader(io.StringIO("\n".join(lines[skipped:])), delimiter=delimiter))
    decimal = "," if delimiter != "," and _has_decimal_comma(rows[1:]) else "."
    return Dialect(delimiter, decimal, encoding.removesuffix("-sig"), skipped + 1), rows


def _encoding(sample: bytes) -> str:
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 4:  # not just a character cut in two
            return "cp1252"
    return "utf-8"


def _has_decimal_comma(rows: list[list[str]]) -> bool:
    cells = [cell.strip() for row in rows[:200] for cell in row]
    commas = sum(cell.count(",") == 1 and cell.replace(",", "").lstrip("+-").isdigit() for cell in cells)
    points = sum(cell.count(".") == 1 and cell.replace(".", "").lstrip("+-").isdigit() for cell in cells)
    return commas > points


def text_blocks(path: Path, dialect: Dialect, offset: int = 0, line: int = 0) -> Iterator[TextBlock]:
    """The file's rows in blocks, from the `offset` and `line` where an earlier block ended, or from the first row."""
    with open_bytes(path) as file:
        rest = b""
        if offset:
            _skip(file, offset)
        else:
            line = dialect.header_lines + 1
            while rest.count(b"\n") < dialect.header_lines and (read := file.read(BLOCK_BYTES)):
                rest += read
            for _ in range(dialect.header_lines):
                offset = rest.find(b"\n", offset) + 1 or len(rest)
            rest = rest[offset:]
        while True:
            # A block follows from where it begins alone, so a run that resumes cuts as the first one did.
            size = BLOCK_BYTES
            rest = _fill(file, rest, size)
            while len(rest) >= size and not _cut(rest[:size]):  # within a long line, or within quotes
                if size >= _LONGEST_QUOTED:  # a quotation mark that nothing closes: lines are lines
                    break
                size += BLOCK_BYTES
                rest = _fill(file, rest, size)
            end = _cut(rest[:size]) or rest[:size].rfind(b"\n") + 1 or size
            if len(rest) < size:
                end = len(rest)
            if not end:
                return
            data, rest = rest[:end], rest[end:]
            offset += len(data)
            lines = data.count(b"\n") + (not data.endswith(b"\n"))
            yield TextBlock(_utf8(data, dialect.encoding), line, offset, line + lines)
            line += lines


def _fill(file: io.BufferedIOBase | pa.NativeFile, data: bytes, size: int) -> bytes:
    """The bytes with more of the file, until there are `size`, or all."""
    parts = [data]
    missing = size - len(data)
    while missing > 0 and (read := file.read(missing)):
        parts.append(read)
        missing -= len(read)
    return b"".join(parts)


def _cut(data: bytes) -> int:
    """Length up to the last line end outside of quotes; 0 when there is none."""
    end = data.rfind(b"\n") + 1
    if b'"' not in data:
        return end
    quotes = data.count(b'"', 0, end)
    while end and quotes % 2:
        before = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(b'"', before, end)
        end = before
    return end


def _skip(file: io.BufferedIOBase | pa.NativeFile, offset: int) -> None:
    if file.seekable():
        file.seek(offset, os.SEEK_SET)
        return
    while offset:
        got = len(file.read(min(offset, BLOCK_BYTES)))
        if not got:
            return
        offset -= got


def _utf8(data: bytes, encoding: str) -> bytes:
    return (
        data if encoding.lower() in ("utf-8", "utf8", "ascii") else data.decode(encoding, "replace").encode()
    )
