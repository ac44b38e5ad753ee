"""A schema compiled for one walk over a tree: texts are taken as written, and most documents are seen to be valid.

Errors come from jsonschema alone. It takes a millisecond a document, so this walk says first whether it has
anything to find: *clean* promises that it has not, and whatever is not understood here is not clean.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from jsonschema import FormatChecker

from trueup.sources.formats import compiled, format_checker
from trueup.sources.tree import strip_places

_PYTHON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_ANNOTATIONS: Final = frozenset(
    {"$schema", "title", "description", "default", "examples", "patternErrorMessage"}
)
_UNDERSTOOD: Final = _ANNOTATIONS | {
    "type",
    "enum",
    "const",
    "properties",
    "additionalProperties",
    "required",
    "propertyNames",
    "items",
    "minItems",
    "uniqueItems",
    "minimum",
    "maximum",
    "minLength",
    "pattern",
    "format",
    "if",
    "else",
}
_FORMATS: Final[FormatChecker] = format_checker()

Check = Callable[[Any], bool]


class Shape:
    """One schema, compiled. `as_text` is whether a plain scalar that YAML reads as no string is wanted as text."""

    __slots__ = (
        "additional",
        "as_text",
        "checks",
        "items",
        "key_pattern",
        "kinds",
        "open",
        "properties",
        "required",
    )

    def __init__(self, schema: Mapping[str, Any]) -> None:
        types = _types(schema)
        self.kinds = frozenset(kind for name in types for kind in _PYTHON_TYPES[name]) if types else None
        self.as_text = _wants_text(schema, types)
        self.properties = {key: Shape(held) for key, held in schema.get("properties", {}).items()}
        self.required = _texts(schema.get("required"))
        additional = schema.get("additionalProperties", True)
        self.open = additional is not False
        self.additional = Shape(additional) if isinstance(additional, dict) else None
        self.items = Shape(schema["items"]) if isinstance(schema.get("items"), dict) else None
        self.key_pattern = _key_pattern(schema)
        self.checks = tuple(_checks(schema))

    def read(self, value: object, text: str | None = None) -> tuple[Any, bool]:
        """*value* as plain data, with texts as written, and whether it is clean."""
        walk = _Walk()
        plain = walk.read(self, value, text)
        return plain, walk.clean

    def accepts(self, value: object) -> bool:
        """Whether plain data is clean."""
        return self.read(value)[1]


class _Walk:
    __slots__ = ("clean",)

    def __init__(self) -> None:
        self.clean = True

    def read(self, shape: Shape, value: Any, text: str | None) -> Any:  # noqa: ANN401 - plain data
        if text is not None and shape.as_text and value is not None:
            value = text
        kind = type(value)
        if kind is str or kind is int or kind is bool or kind is float or value is None:
            plain = value
        elif isinstance(value, dict):
            kind, plain = dict, self.mapping(shape, value)
        elif isinstance(value, list):
            kind, plain = list, self.sequence(shape, value)
        else:
            self.clean, plain = False, value
        if shape.kinds is not None and kind not in shape.kinds:
            self.clean = False
        elif self.clean:
            for check in shape.checks:
                if not check(plain):
                    self.clean = False
                    break
        return plain

    def mapping(self, shape: Shape, value: dict[str, Any]) -> dict[str, Any]:
        properties, additional = shape.properties, shape.additional
        texts: Mapping[str, str] = getattr(value, "texts", {})
        made = {}
        for key, held in value.items():
            below = properties.get(key)
            if below is None:
                if not shape.open:
                    self.clean = False
                below = additional
            if below is None:
                made[key] = strip_places(held)
            else:
                made[key] = self.read(below, held, texts.get(key))
            if shape.key_pattern is not None and not shape.key_pattern.search(key):
                self.clean = False
        if not made.keys() >= shape.required:
            self.clean = False
        return made

    def sequence(self, shape: Shape, value: list[Any]) -> list[Any]:
        if shape.items is None:
            return [strip_places(held) for held in value]
        texts: Mapping[int, str] = getattr(value, "texts", {})
        return [self.read(shape.items, held, texts.get(index)) for index, held in enumerate(value)]


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    found = schema.get("type", ())
    listed = (found,) if isinstance(found, str) else found if isinstance(found, (list, tuple)) else ()
    return tuple(name for name in listed if name in _PYTHON_TYPES)


def _texts(found: object) -> frozenset[str]:
    return (
        frozenset(held for held in found if isinstance(held, str)) if isinstance(found, list) else frozenset()
    )


def _wants_text(schema: Mapping[str, Any], types: tuple[str, ...]) -> bool:
    if (
        schema.get("format") == "name"
    ):  # a name that YAML reads as a number is an error, with the hint to quote it
        return False
    if types:
        return "string" in types and not {"integer", "number", "boolean"} & set(types)
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    return isinstance(choices, list) and bool(choices) and all(isinstance(held, str) for held in choices)


def _key_pattern(schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - google-re2 has no types
    names = schema.get("propertyNames")
    return compiled(names["pattern"]) if isinstance(names, dict) and "pattern" in names else None


def _checks(schema: Mapping[str, Any]) -> list[Check]:
    """Checks of the value as a whole. Each passes what it is not about, as JSON Schema has it."""
    if not schema.keys() <= _UNDERSTOOD:
        return [_never]
    return [make(schema) for keyword, make in _CHECKS.items() if keyword in schema]


def _never(_: object) -> bool:
    return False


def _const(schema: Mapping[str, Any]) -> Check:
    return _enum({"enum": [schema["const"]]})


def _enum(schema: Mapping[str, Any]) -> Check:
    choices = schema["enum"]
    if all(isinstance(held, str) for held in choices):
        texts = frozenset(choices)
        return lambda value: isinstance(value, str) and value in texts
    return _never


def _minimum(schema: Mapping[str, Any]) -> Check:
    least = schema["minimum"]
    return lambda value: not _is_number(value) or value >= least


def _maximum(schema: Mapping[str, Any]) -> Check:
    most = schema["maximum"]
    return lambda value: not _is_number(value) or value <= most


def _min_length(schema: Mapping[str, Any]) -> Check:
    least = schema["minLength"]
    return lambda value: not isinstance(value, str) or len(value) >= least


def _min_items(schema: Mapping[str, Any]) -> Check:
    least = schema["minItems"]
    return lambda value: not isinstance(value, list) or len(value) >= least


def _unique_items(schema: Mapping[str, Any]) -> Check:
    return _is_unique if schema["uniqueItems"] else _always


def _pattern(schema: Mapping[str, Any]) -> Check:
    search = compiled(schema["pattern"]).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _format(schema: Mapping[str, Any]) -> Check:
    name = schema["format"]
    if name not in _FORMATS.checkers:  # an annotation only
        return _always
    return lambda value: _FORMATS.conforms(value, name)


def _otherwise(schema: Mapping[str, Any]) -> Check:
    """`else` where `if` only asks for properties; any other `if` is not understood."""
    condition = schema.get("if")
    if not isinstance(condition, dict) or condition.keys() != {"required"}:
        return _never
    wanted, other = frozenset(condition["required"]), Shape(schema["else"])
    return lambda value: not isinstance(value, dict) or value.keys() >= wanted or other.accepts(value)


def _always(_: object) -> bool:
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_unique(value: object) -> bool:
    if not isinstance(value, list):
        return True
    if not all(isinstance(item, str) for item in value):
        return False
    return len(set(value)) == len(value)


_CHECKS: Final[dict[str, Callable[[Mapping[str, Any]], Check]]] = {
    "const": _const,
    "enum": _enum,
    "minimum": _minimum,
    "maximum": _maximum,
    "minLength": _min_length,
    "minItems": _min_items,
    "uniqueItems": _unique_items,
    "pattern": _pattern,
    "format": _format,
    "else": _otherwise,
}
