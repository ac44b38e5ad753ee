"""YAML text to documents that know where each of their values stands.

PyYAML's C parser makes the nodes, `composer.py` reads the YAML 1.2 core out of them; this module does the text:
encoding, syntax errors, several documents in a file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from trueup.models.errors import SpecError
from trueup.sources.composer import SPEC_LIMITS, Composer, Limits, TooManyNodesError
from trueup.sources.loaders import NodeLoader
from trueup.sources.snapshot import FileKey
from trueup.sources.tree import Spot, Tree, strip_places

_PROBLEM_HINTS: Final = {
    "mapping values are not allowed in this context": 'indent it by one level, or quote a text that holds ": "',
    "found undefined alias": "an alias names an anchor of the same document; quote a text that begins with *",
    "did not find expected <document start>": "separate documents with ---, and give every line a key or a dash",
    "could not find expected ':'": "a key ends in a colon and a space",
    "block sequence entries are not allowed in this context": "begin the list on a line of its own",
    "did not find expected '-' indicator": "the lines of a list begin with a dash in the same column",
    "did not find expected key": "the keys of a mapping begin in the same column",
}
_TAB: Final = ("a tab cannot indent", "use spaces")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file; with *errors* its tree holds what could be read, which is not to be relied on."""

    tree: Tree
    errors: tuple[SpecError, ...] = ()

    def plain(self) -> Any:  # noqa: ANN401 - plain data is whatever YAML can say
        """The value as plain dicts and lists."""
        return strip_places(self.tree.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """All documents of a file, empty ones left out; or *errors*, and then nobody knows what it held."""

    file: FileKey
    documents: tuple[Document, ...] = ()
    errors: tuple[SpecError, ...] = ()


def parse(
    text: bytes,
    file: str,
    root: int = 0,
    *,
    limits: Limits = SPEC_LIMITS,
    loader: Callable[[str], Any] = NodeLoader,
) -> ParsedFile:
    """The documents of a YAML file. Never raises: what is wrong is in the errors, with its line and column."""
    key = FileKey(root, file)
    try:
        content = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _refused(key, _encoding_error(key, text, error))
    try:
        return ParsedFile(file=key, documents=tuple(_documents(loader(content), key, limits)))
    except yaml.MarkedYAMLError as error:
        return _refused(key, _syntax_error(key, content, error))
    except yaml.reader.ReaderError as error:
        return _refused(key, _character_error(key, content, error))
    except RecursionError:
        return _refused(key, SpecError(file=file, message=f"nested deeper than {limits.depth} levels"))
    except TooManyNodesError as error:
        return _refused(key, SpecError(file=file, message=str(error), hint="split it into several files"))


def _documents(loader: Any, key: FileKey, limits: Limits) -> Iterator[Document]:  # noqa: ANN401 - as above
    left = limits.file_nodes
    try:
        while loader.check_node():
            node = loader.get_node()
            composer = Composer(key, limits)
            value, _ = composer.compose(node)
            left -= composer.nodes
            if left < 0:
                raise TooManyNodesError(
                    f"has more than {limits.file_nodes:,} values, aliases counted in full"
                )
            if value is None and not composer.errors:
                continue
            root = Spot(key, node.start_mark.line + 1, node.start_mark.column + 1)
            yield Document(tree=Tree(value=value, root=root), errors=tuple(composer.errors))
    finally:
        loader.dispose()


def _refused(key: FileKey, error: SpecError) -> ParsedFile:
    return ParsedFile(file=key, errors=(error,))


def _syntax_error(key: FileKey, content: str, error: yaml.MarkedYAMLError) -> SpecError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    problem = error.problem or "is no YAML"
    hint = _PROBLEM_HINTS.get(problem, "")
    if problem.startswith("found a tab character"):
        problem, hint = _TAB
    if problem == "found character that cannot start any token":
        problem, hint = _bad_start(content, line, column)
    if problem == "exceeded maximum nesting depth":
        problem = f"nested deeper than {SPEC_LIMITS.depth} levels"
    context = error.context_mark
    if context is not None and context.line + 1 != line and problem != _TAB[0]:
        problem += f" ({error.context} that begins in line {context.line + 1})"
    return SpecError(file=key.path, line=line, column=column, message=problem, hint=hint)


def _bad_start(content: str, line: int, column: int) -> tuple[str, str]:
    """Libyaml does not say which character: a tab and a text in need of quotes have different remedies."""
    lines = content.split("\n", line)
    character = lines[line - 1][column - 1 : column] if len(lines) >= line else ""
    if character == "\t":
        return _TAB
    return f"{character!r} cannot begin a plain text", "quote the text"


def _encoding_error(key: FileKey, text: bytes, error: UnicodeDecodeError) -> SpecError:
    before = text[: error.start]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    return SpecError(
        file=key.path, line=line, column=column, message="is not UTF-8", hint="save the file as UTF-8"
    )


def _character_error(key: FileKey, content: str, error: yaml.reader.ReaderError) -> SpecError:
    # Counted anew: the C parser gives a byte's position, the Python one a character's.
    position = next((at for at, held in enumerate(content) if not _is_printable(held)), 0)
    before = content[:position]
    return SpecError(
        file=key.path,
        line=before.count("\n") + 1,
        column=position - before.rfind("\n"),
        message=f"{error.reason}",
        hint='write it as an escape such as "\\x07" in a quoted text',
    )


def _is_printable(character: str) -> bool:
    code = ord(character)
    return (
        code in {0x09, 0x0A, 0x0D, 0x85} or 0x20 <= code <= 0x7E or 0xA0 <= code <= 0xD7FF or code >= 0xE000
    )
