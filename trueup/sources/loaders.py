"""PyYAML's two parsers under one face: nodes with marks, nothing resolved.

libyaml's where the wheel has it (16 times as fast), else the one in Python: slower, never a failure. Values are
resolved in `composer.py`, so a node only says whether its scalar was plain.
"""

from typing import Any, Final

import yaml

PLAIN: Final = "plain"
TEXT: Final = "text"
SEQUENCE: Final = "sequence"
MAPPING: Final = "mapping"


class _Kinds:
    """What a composer asks its resolver, answered without looking at the value."""

    def descend_resolver(self, parent: object, index: object) -> None:
        """No rule of ours depends on the way to a node."""

    def ascend_resolver(self) -> None:
        """As above."""

    def resolve(self, kind: type, value: object, implicit: Any) -> str:  # noqa: ANN401, ARG002 - PyYAML's signature
        """The tag of a node that has none of its own."""
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else TEXT
        return SEQUENCE if kind is yaml.SequenceNode else MAPPING


class PythonLoader(
    _Kinds, yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer
):
    """The parser in Python."""

    def __init__(self, content: str) -> None:
        yaml.reader.Reader.__init__(self, content)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)


def _node_loader() -> Any:  # noqa: ANN401 - CParser has no types
    if not yaml.__with_libyaml__:
        return PythonLoader
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class CLoader(_Kinds, CParser):
        """libyaml's parser."""

        def __init__(self, content: str) -> None:
            CParser.__init__(self, content.encode())

        def dispose(self) -> None:
            """Nothing is left to let go of."""

    return CLoader


NodeLoader: Final = _node_loader()
