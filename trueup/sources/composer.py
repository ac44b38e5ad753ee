"""YAML nodes to placed values: the 1.2 core, merges, bounds and what must be refused, in one walk.

An aliased node is built once and shared, but counted each time, so that a small file cannot stand for a huge
one; a node that holds itself is an error. Depth is checked before the walk goes deeper.
"""

from dataclasses import dataclass
from typing import Any, Final

import yaml

from trueup.models.errors import SpecError
from trueup.sources.loaders import MAPPING, PLAIN, SEQUENCE, TEXT
from trueup.sources.scalars import NotFiniteError, Scalar, resolve
from trueup.sources.snapshot import FileKey
from trueup.sources.tree import PlacedList, PlacedMapping, path_text

MAX_ERRORS: Final = 100
_MERGE: Final = "<<"
_CORE: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = {"str", "int", "float", "bool", "null"}
_KINDS: Final = {"int": int, "bool": bool, "null": type(None)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one document, and of all documents of one file together."""

    depth: int
    nodes: int
    file_nodes: int


SPEC_LIMITS: Final = Limits(depth=64, nodes=100_000, file_nodes=1_000_000)


class TooManyNodesError(Exception):
    """A file stands for more values than anyone writes."""


class _Refused(Exception):
    """Nothing more of this document is read."""


@dataclass(slots=True)
class _Built:
    """A container that was built: *nodes* and *height* of all that it holds, for its next alias."""

    value: Any
    nodes: int
    height: int


class Composer:
    """Builds one document. `errors` and `nodes` tell of it afterwards."""

    def __init__(self, file: FileKey, limits: Limits) -> None:
        self.errors: list[SpecError] = []
        self.nodes = 0
        self._file = file
        self._limits = limits
        self._built: dict[int, _Built] = {}
        self._open: set[int] = set()
        self._path: list[str | int] = []

    def compose(self, node: yaml.Node) -> tuple[Any, str | None]:
        """The value of a whole document and, for a plain scalar that is no text, its text."""
        try:
            value, text, _ = self._value(node, 0)
        except _Refused:
            return None, None
        return value, text

    def _value(self, node: yaml.Node, depth: int) -> tuple[Any, str | None, int]:
        """Value, text, and height: 0 for a scalar."""
        if isinstance(node, yaml.ScalarNode):
            self._count(node, 1)
            value, text = self._scalar(node)
            return value, text, 0
        known = self._built.get(id(node))
        if known is None:
            known = self._container(node, depth)
        else:
            self._count(node, known.nodes)
        if depth + known.height > self._limits.depth:
            self._refuse(node, f"nested deeper than {self._limits.depth} levels")
        return known.value, None, known.height

    def _container(self, node: yaml.Node, depth: int) -> _Built:
        if id(node) in self._open:
            self._refuse(node, "an anchor cannot hold itself")
        if depth >= self._limits.depth:
            self._refuse(node, f"nested deeper than {self._limits.depth} levels")
        before = self.nodes
        self._count(node, 1)
        self._open.add(id(node))
        value: Any = None
        height = 0
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, SEQUENCE, "seq")
            value, height = self._sequence(node, depth)
        elif isinstance(node, yaml.MappingNode):
            self._check_tag(node, MAPPING, "map")
            value, height = self._mapping(node, depth)
        self._open.discard(id(node))
        built = _Built(value, self.nodes - before, height + 1)
        self._built[id(node)] = built
        return built

    def _sequence(self, node: yaml.SequenceNode, depth: int) -> tuple[Any, int]:
        made, height = PlacedList(), 0
        file, path = self._file, self._path
        for item in node.value:
            path.append(len(made))
            value, text, below = self._value(item, depth + 1)
            path.pop()
            mark = item.start_mark
            line, column = mark.line + 1, mark.column + 1
            made.put(value, (file, line, column, line, column), text)
            height = max(height, below)
        return made, height

    def _mapping(self, node: yaml.MappingNode, depth: int) -> tuple[Any, int]:
        made, height = PlacedMapping(), 0
        merges: list[PlacedMapping] = []
        file, path = self._file, self._path
        for key_node, item in node.value:
            key = self._key(key_node)
            if key is None:
                continue
            key_mark, mark = key_node.start_mark, item.start_mark
            if key in made or (key == _MERGE and merges):
                self._duplicate(made, key, key_node)
                continue
            path.append(key)
            value, text, below = self._value(item, depth + 1)
            height = max(height, below)
            if key == _MERGE and key_node.tag == PLAIN:
                merges = self._merged(value, item)
            else:
                made.put(
                    key,
                    value,
                    (file, key_mark.line + 1, key_mark.column + 1, mark.line + 1, mark.column + 1),
                    text,
                )
            path.pop()
        for merged in merges:
            for key in merged:
                if key not in made:
                    made.take(merged, key)
        return made, height

    def _key(self, node: yaml.Node) -> str | None:
        """The text of a key, or None for what cannot be one."""
        self._count(node, 1)
        if isinstance(node, yaml.ScalarNode):
            if node.tag not in {PLAIN, TEXT}:
                self._scalar(node)
            return str(node.value)
        hint = 'quote it: "{{ … }}"' if isinstance(node, yaml.MappingNode) and node.flow_style else ""
        self._error(node, "a key must be a text", hint)
        return None

    def _merged(self, value: object, node: yaml.Node) -> list[PlacedMapping]:
        listed = list(value) if isinstance(value, PlacedList) else [value]
        found = [held for held in listed if isinstance(held, PlacedMapping)]
        if len(found) == len(listed):
            self._count(node, sum(len(held) for held in found))
            return found
        self._error(node, "<< merges a mapping, or a list of mappings")
        return []

    def _duplicate(self, made: PlacedMapping, key: str, node: yaml.Node) -> None:
        first = f"; it is in line {made.marks[key][1]} already" if key in made.marks else ""
        self._path.append(key)
        self._error(node, f"duplicate key{first}", "keep one of them")
        self._path.pop()

    def _scalar(self, node: yaml.ScalarNode) -> tuple[Scalar, str | None]:
        text = str(node.value)
        if node.tag == TEXT:
            return text, None
        try:
            if node.tag == PLAIN:
                value, special = resolve(text)
                return value, (text if special else None)
            return self._tagged(node, text)
        except NotFiniteError:
            self._error(node, "a number must be finite", "quote it if it is a text")
            return None, None

    def _tagged(self, node: yaml.ScalarNode, text: str) -> tuple[Scalar, str | None]:
        tag = str(node.tag)
        name = tag.removeprefix(_CORE)
        if name == tag or name not in _SCALAR_TAGS:
            self._refuse_tag(node)
            return text, None
        if name == "str":
            return text, None
        value, _ = resolve(text)
        if name == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value), text
        if name != "float" and type(value) is _KINDS[name]:
            return value, text
        self._error(node, f"is no {name}, as its tag !!{name} says")
        return None, None

    def _check_tag(self, node: yaml.Node, own: str, core: str) -> None:
        if node.tag not in {own, _CORE + core}:
            self._refuse_tag(node)

    def _refuse_tag(self, node: yaml.Node) -> None:
        tag = str(node.tag).replace(_CORE, "!!")
        self._error(
            node, f"tag {tag} is not of the YAML 1.2 core", "leave it out, or quote a text that begins with !"
        )

    def _count(self, node: yaml.Node, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > self._limits.nodes:
            self._refuse(
                node, f"a document holds at most {self._limits.nodes:,} values, aliases counted in full"
            )

    def _refuse(self, node: yaml.Node, message: str) -> None:
        self._error(node, message)
        raise _Refused

    def _error(self, node: yaml.Node, message: str, hint: str = "") -> None:
        self.errors.append(
            SpecError(
                file=self._file.path,
                line=node.start_mark.line + 1,
                column=node.start_mark.column + 1,
                path=path_text(self._path),
                message=message,
                hint=hint,
            )
        )
        if len(self.errors) >= MAX_ERRORS:
            raise _Refused
