"""Reads the annotated values.yaml of a chart into a tree; charts.py makes schema and reference of it.

The file is the one source of a chart's values: the comment above a key describes it, its default tells its type, and
lines of the comment that begin with `@` say what the default does not:

    @schema {…}      members of its JSON schema, written as YAML
    @like KEY        this block has the keys of the block KEY, with their descriptions
    @settings        settings of Tidewire's processes by name
    @resources       requests and limits of a container
    @quantity        a Kubernetes quantity, such as 20Gi
    @policies        scaling policies of an autoscaler
    @ports           a list of port numbers
    @kubernetes TYPE an object, or a list of objects, of the Kubernetes API, which the cluster checks

Only block mappings are looked into; what stands in braces or under `-` is a default as a whole.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_KEY = re.compile(r"^( *)([A-Za-z][\w.-]*):(?: .*)?$")
_COMMENT = re.compile(r"^( *)# ?(.*)$")


class ValuesError(Exception):
    """values.yaml does not say what it has to; the message names the key."""


@dataclass(slots=True)
class Value:
    """One key: `path` is its name from the top, such as `kafka.partitions`; `default` what the file has."""

    path: str
    description: str
    default: Any
    annotations: dict[str, str] = field(default_factory=dict)
    children: dict[str, "Value"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


def read_values(path: Path) -> Value:
    """Returns the root of the tree; ValuesError when a key lacks its description, or an annotation is not known."""
    text = path.read_text()
    comments = dict(_comments(text.splitlines()))
    root = _node("", yaml.safe_load(text), comments)
    for value in list(walk(root)):
        like = value.annotations.get("like")
        if like is not None:
            _adopt(value, root.children[like])
    for value in walk(root):
        if not value.description and not value.children:
            raise ValuesError(f"{path.name}: {value.path} has no description; write one above it")
    return root


def walk(value: Value) -> Iterator[Value]:
    """Yields all values below, depth first, in the order of the file."""
    for child in value.children.values():
        yield child
        yield from walk(child)


def _comments(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields the path of each key of a block mapping and the lines of the comment right above it."""
    above: list[str] = []
    stack: list[tuple[int, str]] = []
    for line in lines:
        comment = _COMMENT.match(line)
        key = _KEY.match(line)
        if comment is not None:
            above.append(comment[2])
            continue
        if key is not None:
            indent = len(key[1])
            while stack and stack[-1][0] >= indent:
                stack.pop()
            stack.append((indent, key[2]))
            yield ".".join(name for _, name in stack), above
        above = []


def _node(path: str, default: Any, comments: dict[str, list[str]]) -> Value:
    """Builds the value at `path` with all below it."""
    lines = comments.get(path, [])
    annotations: dict[str, str] = {}
    for line in lines:
        if line.startswith("@"):
            name, _, rest = line[1:].partition(" ")
            annotations[name] = rest
    unknown = annotations.keys() - {
        "schema",
        "like",
        "settings",
        "resources",
        "quantity",
        "policies",
        "ports",
        "kubernetes",
    }
    if unknown:
        raise ValuesError(f"{path}: @{', @'.join(sorted(unknown))} is no annotation")
    description = " ".join(line for line in lines if not line.startswith("@")).strip()
    value = Value(path, description, default, annotations)
    if isinstance(default, dict) and "resources" not in annotations:
        prefix = f"{path}." if path else ""
        for name, below in default.items():
            value.children[name] = _node(f"{prefix}{name}", below, comments)
    return value


def _adopt(value: Value, model: Value) -> None:
    """Gives a block the descriptions and annotations of the block that it is like; checks that keys are the same."""
    missing = model.children.keys() - value.children.keys()
    if missing:
        raise ValuesError(f"{value.path} is like {model.path}, but lacks {', '.join(sorted(missing))}")
    for name, child in value.children.items():
        if name not in model.children:
            if not child.description:
                raise ValuesError(f"{child.path} is not in {model.path} and has no description of its own")
            continue
        like = model.children[name]
        child.description = child.description or like.description
        child.annotations = child.annotations or dict(like.annotations)
        if "resources" in child.annotations:
            child.children = {}
        else:
            _adopt(child, like)
