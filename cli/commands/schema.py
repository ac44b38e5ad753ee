"""`trueup schema`: the JSON Schema that validation uses, for editors and other tools."""

import json
from importlib.resources import files
from typing import Any, Final

import click

from cli.options import Command

_KINDS: Final = ("job", "template", "node", "cluster")
_ALL: Final = "all"
_NARROW: Final = frozenset({"pattern", "format", "enum", "const"})
"""Where one of these stands, not any text will do."""


@click.command(cls=Command)
@click.argument("kind", type=click.Choice((*_KINDS, _ALL), case_sensitive=False))
def command(kind: str) -> None:
    """Print the JSON Schema of a KIND of document; `all` is one schema for files with documents of any kind."""
    if kind.lower() == _ALL:
        click.echo(json.dumps(_schema_of_all(), indent=2, ensure_ascii=False))
        return
    click.echo(_text(kind.lower()), nl=False)


def _text(kind: str) -> str:
    return files("schemas").joinpath(f"{kind}.json").read_text(encoding="utf-8")


def _schema_of_all() -> dict[str, Any]:
    """Chosen by `kind`, so that an editor completes and complains about the one that is meant."""
    schemas = {kind: _for_editors(json.loads(_text(kind)), f"#/$defs/{kind}/$defs/") for kind in _KINDS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trueup",
        "type": "object",
        "required": ["kind", "name"],
        "properties": {"kind": {"enum": [schemas[kind]["properties"]["kind"]["const"] for kind in _KINDS]}},
        "allOf": [
            {
                "if": {"properties": {"kind": schemas[kind]["properties"]["kind"]}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind in _KINDS
        ],
        "$defs": schemas,
    }


def _for_editors(schema: Any, place: str) -> Any:  # noqa: ANN401 - a schema is whatever JSON can say
    """The schema as it is read below *place*, by programs that do not take plain scalars as they are written.

    Its references lead to its own `$defs` there. Where any text is wanted, `10` and `true` are texts to trueup, but no
    strings to an editor.
    """
    if isinstance(schema, list):
        return [_for_editors(held, place) for held in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _for_editors(held, place) for key, held in schema.items() if key != "$schema"}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = made["$ref"].replace("#/$defs/", place)
    kinds = made.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and "string" in kinds and not made.keys() & _NARROW:
        made["type"] = list(dict.fromkeys([*kinds, "number", "boolean"]))
    return made
