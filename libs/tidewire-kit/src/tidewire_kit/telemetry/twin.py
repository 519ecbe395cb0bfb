"""Private twins of the public telemetry messages, in which every packed column is declared `repeated bytes`.

A packed repeated fixed-width field and a `bytes` field have the same wire type. Declared as bytes, a column comes
out of the parser as one object that NumPy views in place, instead of one Python float per cell. A legal encoder may
send a column in several pieces or not packed at all; a twin then shows another number of elements than one, or
unknown fields, and its user parses the bytes again with the public message. Used by `wire` and `record`; nobody else
sees a twin.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

_PACKABLE = frozenset({FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_FIXED64,
                       FieldDescriptor.TYPE_DOUBLE})  # fmt: skip


def twins_of(public: FileDescriptor) -> dict[str, Any]:
    """Message classes like those of `public`, by name, with `repeated bytes` in place of each packed column.

    They live in a descriptor pool of their own, so that they can neither be found nor collide with anything.
    """
    proto = descriptor_pb2.FileDescriptorProto()
    public.CopyToProto(proto)
    public_package = proto.package
    proto.name = f"twin/{proto.name}"
    proto.package = f"twin.{public_package}"
    del proto.dependency[:]  # only options needed them
    for message in proto.message_type:
        message.ClearField("options")
        for field in message.field:
            field.ClearField("options")
            if field.type_name:
                field.type_name = field.type_name.replace(f".{public_package}.", f".{proto.package}.", 1)
            if field.label == field.LABEL_REPEATED and field.type in _PACKABLE:
                field.type = field.TYPE_BYTES
    file = descriptor_pool.DescriptorPool().AddSerializedFile(proto.SerializeToString())
    return {
        name: message_factory.GetMessageClass(descriptor)
        for name, descriptor in file.message_types_by_name.items()
    }


def has_unknown_fields(message: Message) -> bool:
    """Whether `message` itself (not its children) holds fields that its schema does not name."""
    return len(UnknownFieldSet(message)) > 0
