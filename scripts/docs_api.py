"""Renders the reference of the wire formats from the comments in protos/, one page a package; docs.py calls it."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from protos import SOURCES, own_sources, wheel_directory

# Field numbers in descriptor.proto: a comment's place is a path of them with indexes between.
MESSAGES, ENUMS, SERVICES, METHODS, FIELDS, NESTED_MESSAGES, NESTED_ENUMS, VALUES = 4, 5, 6, 2, 2, 3, 4, 2
PACKAGE = 2

type Place = tuple[int, ...]
type Comments = Mapping[Place, str]


def read_sources() -> list[FileDescriptorProto]:
    """Compiles all our protos and returns their descriptors with comments, sorted by path."""
    with tempfile.TemporaryDirectory(prefix="tidewire-docs-") as scratch:
        target = Path(scratch, "descriptors.binpb")
        roots = [SOURCES, wheel_directory(), files("grpc_tools") / "_proto"]
        arguments = ["protoc", *(f"--proto_path={root}" for root in roots), "--include_source_info"]
        if protoc.main([*arguments, f"--descriptor_set_out={target}", *map(str, own_sources())]) != 0:
            raise SystemExit("docs: protoc refused the sources; its messages are above")
        return sorted(FileDescriptorSet.FromString(target.read_bytes()).file, key=lambda file: file.name)


def comments_of(file: FileDescriptorProto) -> Comments:
    """Returns place → comment, each as one string that may hold several paragraphs."""
    return {tuple(where.path): where.leading_comments.strip() for where in file.source_code_info.location}


def paragraphs(text: str) -> str:
    """Takes the one blank off each line that follows the comment sign."""
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.splitlines())


def cell(text: str) -> str:
    """Makes a comment fit into one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def type_name(field: FieldDescriptorProto) -> str:
    """Returns the type as one writes it in a proto, without our own package's prefix."""
    name = field.type_name.removeprefix(".")
    if not name:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if name.startswith("tidewire."):
        name = ".".join(name.split(".")[3:])
    return f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def render_service(service: ServiceDescriptorProto, place: Place, comments: Comments) -> Iterator[str]:
    """Yields the section of a service with its methods."""
    yield f"## {service.name}\n\n{paragraphs(comments.get(place, ''))}\n"
    for index, method in enumerate(service.method):
        request = f"{'stream ' if method.client_streaming else ''}{method.input_type.rsplit('.', 1)[-1]}"
        response = f"{'stream ' if method.server_streaming else ''}{method.output_type.rsplit('.', 1)[-1]}"
        yield f"### {service.name}.{method.name}\n\n`{request}` → `{response}`\n"
        yield f"{paragraphs(comments.get((*place, METHODS, index), ''))}\n"


def map_types(message: DescriptorProto) -> dict[str, str]:
    """Returns the nested entry messages of map fields, as name → the type to show."""
    return {
        nested.name: f"map<{type_name(nested.field[0])}, {type_name(nested.field[1])}>"
        for nested in message.nested_type
        if nested.options.map_entry
    }


def render_message(
    message: DescriptorProto, place: Place, comments: Comments, prefix: str = ""
) -> Iterator[str]:
    """Yields the section of a message and of what is nested in it."""
    name = f"{prefix}{message.name}"
    yield f"### {name}\n\n{paragraphs(comments.get(place, ''))}\n"
    maps = map_types(message)
    if message.field:
        rows = ["| field | type | number | meaning |", "|---|---|---|---|"]
        for index, field in enumerate(message.field):
            shown = maps.get(field.type_name.rsplit(".", 1)[-1], type_name(field))
            meaning = cell(comments.get((*place, FIELDS, index), ""))
            rows.append(f"| `{field.name}` | {shown} | {field.number} | {meaning} |")
        yield "\n".join(rows) + "\n"
    for index, enum in enumerate(message.enum_type):
        yield from render_enum(enum, (*place, NESTED_ENUMS, index), comments, f"{name}.")
    for index, nested in enumerate(message.nested_type):
        if nested.name not in maps:
            yield from render_message(nested, (*place, NESTED_MESSAGES, index), comments, f"{name}.")


def render_enum(
    enum: EnumDescriptorProto, place: Place, comments: Comments, prefix: str = ""
) -> Iterator[str]:
    """Yields the section of an enum."""
    yield f"### {prefix}{enum.name}\n\n{paragraphs(comments.get(place, ''))}\n"
    rows = ["| value | number | meaning |", "|---|---|---|"]
    for index, value in enumerate(enum.value):
        meaning = cell(comments.get((*place, VALUES, index), ""))
        rows.append(f"| `{value.name}` | {value.number} | {meaning} |")
    yield "\n".join(rows) + "\n"


def pages() -> dict[str, str]:
    """Returns the path below docs/reference → text of each page."""
    sections: dict[str, list[str]] = defaultdict(list)
    for file in read_sources():
        comments, section = comments_of(file), sections[file.package]
        if intro := comments.get((PACKAGE,), ""):
            section.append(f"{paragraphs(intro)}\n")
        for index, service in enumerate(file.service):
            section.extend(render_service(service, (SERVICES, index), comments))
        if file.message_type or file.enum_type:
            section.append(f"## Messages of `{file.name}`\n")
        for index, message in enumerate(file.message_type):
            section.extend(render_message(message, (MESSAGES, index), comments))
        for index, enum in enumerate(file.enum_type):
            section.extend(render_enum(enum, (ENUMS, index), comments))
    return {
        f"api/{package}.md": "\n".join([f"# {package}\n", *section]) for package, section in sections.items()
    }
