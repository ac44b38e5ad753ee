"""`.trueupignore`: which names of a spec tree are left out, in gitignore's form.

Patterns become RE2 expressions, so a hostile one costs no more than its length. Files in sub-folders count for
what lies under them, and the last pattern that matches decides, as with git.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2

_MAX_PATTERN: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """*base* is the folder of the file that holds it, empty for the root, else ending in `/`."""

    base: str
    expression: Any
    negated: bool
    folders_only: bool


class IgnoreRules:
    """The patterns of one root. Immutable; equal texts give equal answers."""

    __slots__ = ("_patterns",)

    def __init__(self, texts: Mapping[str, bytes]) -> None:
        """Takes the content of each `.trueupignore` by its folder (empty for the root). Reads bad patterns as none."""
        found = []
        for folder in sorted(texts, key=lambda name: (name.count("/") + bool(name), name)):
            base = f"{folder}/" if folder else ""
            for line in texts[folder].decode("utf-8", "replace").splitlines():
                pattern = _read_line(base, line)
                if pattern is not None:
                    found.append(pattern)
        self._patterns = tuple(found)

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Whether the file or *folder* of that path is listed. What lies in a listed folder is out: ask that first."""
        for pattern in reversed(self._patterns):
            if pattern.folders_only and not folder:
                continue
            if not path.startswith(pattern.base):
                continue
            if pattern.expression.fullmatch(path[len(pattern.base) :]):
                return not pattern.negated
        return False

    def ignores_folder_of(self, path: str) -> bool:
        """Whether any folder on the way to *path* is listed."""
        parts = path.split("/")[:-1]
        return any(self.ignores("/".join(parts[: depth + 1]), folder=True) for depth in range(len(parts)))


NO_RULES: Final = IgnoreRules({})


def _read_line(base: str, line: str) -> _Pattern | None:
    text = _strip(line)
    if not text or text.startswith("#") or len(text) > _MAX_PATTERN:
        return None
    negated = text.startswith("!")
    text = text[1:] if negated else text
    folders_only = text.endswith("/")
    text = text[:-1] if folders_only else text
    anchored = "/" in text
    text = text.removeprefix("/")
    if not text:
        return None
    expression = _expression(text, anchored=anchored)
    if expression is None:
        return None
    return _Pattern(base=base, expression=expression, negated=negated, folders_only=folders_only)


def _strip(line: str) -> str:
    """Without trailing spaces, save one that a backslash keeps."""
    stripped = line.rstrip(" \t\r\n")
    if stripped.endswith("\\") and len(stripped) < len(line.rstrip("\r\n")):
        stripped += " "
    return stripped


@lru_cache(maxsize=1024)
def _expression(text: str, *, anchored: bool) -> Any:  # noqa: ANN401 - google-re2 has no types
    source = "" if anchored else "(?:.*/)?"
    position = 0
    while position < len(text):
        part, position = _translate(text, position)
        source += part
    try:
        return re2.compile(source)
    except re2.error:
        return None


def _translate(text: str, position: int) -> tuple[str, int]:
    """The expression of what begins at *position*, and where the next begins."""
    at_start = position == 0 or text[position - 1] == "/"
    if at_start and text.startswith("**/", position):
        return "(?:.*/)?", position + 3
    if at_start and text[position:] == "**":
        return ".+", len(text)
    character = text[position]
    if character == "*":
        return "[^/]*", position + 1
    if character == "?":
        return "[^/]", position + 1
    if character == "[":
        return _translate_class(text, position)
    if character == "\\" and position + 1 < len(text):
        return re2.escape(text[position + 1]), position + 2
    return re2.escape(character), position + 1


def _translate_class(text: str, position: int) -> tuple[str, int]:
    end = text.find("]", position + 2)
    if end < 0:
        return re2.escape("["), position + 1
    inner = text[position + 1 : end]
    negated = inner.startswith(("!", "^"))
    inner = inner[1:] if negated else inner
    body = inner.replace("\\", "\\\\").replace("[", "\\[")
    return f"[{'^/' if negated else ''}{body}]", end + 1
