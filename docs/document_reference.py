"""The reference page of the documents of a tree, made from the JSON Schemas that validate them."""

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Final

KINDS: Final = ("job", "template", "node", "cluster")
Schema = Mapping[str, Any]

_HEAD: Final = """\
# Documents

<!-- Made by `make docs` from `schemas/`; edit the schemas instead. -->

Every `*.yaml` and `*.yml` under the root, several documents a file; identity is kind and name. Unknown keys are errors.
Names are a-z, 0-9 and dashes inside, 63 characters at most. Durations are written `500ms` `10s` `1h30m` `7d`, sizes
`64KiB` `1.5GiB`, cpu in cores (`0.25`). Where a text is wanted, a value is taken as written: `012` and `NO` keep their
text. `trueup schema KIND` prints a schema for editors. What may stand in several places is described at the first.
"""
_WORDS: Final = {
    "positive-duration": "duration",
    "cores": "cores",
    "re2": "RE2",
    "ip": "address",
    "off": "`off`",
    "inside": "path",
    "artifact-source": "address",
    "on-change": "string",
}


def document_page() -> str:
    """The page, Markdown."""
    return _HEAD + "".join("".join(_Kind(kind).sections()) for kind in KINDS)


class _Kind:
    """One kind of document: a section for it, and one for each mapping inside it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._described: set[str] = set()
        self._schema: Schema = json.loads(files("schemas").joinpath(f"{kind}.json").read_text("utf-8"))

    def sections(self) -> Iterator[str]:
        """The kind's own fields, then those inside, in the order they are written."""
        yield f"\n## {self._kind.capitalize()}\n\n{self._schema['description']}\n"
        yield from self._fields("", self._schema)

    def _fields(self, path: str, schema: Schema) -> Iterator[str]:
        properties = {
            name: self._resolved(found) for name, found in schema["properties"].items() if name != "kind"
        }
        required = schema.get("required", ())
        if path:
            about = schema.get("description", "")
            yield f"\n### {self._kind.capitalize()}: `{path}`\n" + (f"\n{about}\n" if about else "")
        yield "\n| field | form | default | |\n| --- | --- | --- | --- |\n"
        for name, found in properties.items():
            default = "required" if name in required else _default(found)
            yield f"| `{name}` | {self._form(found)} | {default} | {_cell(found.get('description', ''))} |\n"
        for name, found in properties.items():
            yield from self._inside(f"{path}.{name}".lstrip("."), found)

    def _inside(self, path: str, schema: Schema) -> Iterator[str]:
        # What stands in several places, or inside itself as a parameter's items may, is described once.
        reference = schema.get("reference", path)
        if reference in self._described:
            return
        self._described.add(reference)
        if "properties" in schema:
            yield from self._fields(path, schema)
        for suffix, part in (("[]", "items"), (".NAME", "additionalProperties")):
            if isinstance(schema.get(part), dict):
                yield from self._inside(path + suffix, self._resolved(schema[part]))

    def _resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        if reference is None:
            return schema
        return {**self._schema["$defs"][reference.rpartition("/")[2]], **schema, "reference": reference}

    def _form(self, schema: Schema) -> str:
        if "const" in schema or "enum" in schema:
            return " · ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
        kinds = schema.get("type", "any")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        return " or ".join(self._form_of(kind, schema) for kind in kinds)

    def _form_of(self, kind: str, schema: Schema) -> str:
        if kind == "array":
            items = self._resolved(schema.get("items", {}))
            return f"list of {self._form(items)}"
        if kind == "object":
            values = schema.get("additionalProperties")
            return (
                f"mapping to {self._form(self._resolved(values))}" if isinstance(values, dict) else "mapping"
            )
        if kind in {"integer", "number"} and {"minimum", "maximum"} <= schema.keys():
            unit = " cores" if schema.get("format") == "cores" else ""
            return f"{kind}, {schema['minimum']} to {schema['maximum']}{unit}"
        written: str = schema.get("format", kind)
        return _WORDS.get(written, written)


def _default(schema: Schema) -> str:
    if "default" not in schema or schema["default"] in ("", [], {}):
        return ""
    default = schema["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
