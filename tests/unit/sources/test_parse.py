"""YAML 1.2 core with places: what plain scalars are, merges, bounds, and files nobody could read."""

import re
import time
from typing import Any, Final

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from trueup.sources.composer import Limits
from trueup.sources.loaders import PythonLoader
from trueup.sources.parse import ParsedFile, parse
from trueup.sources.tree import Tree

SCALARS: Final[dict[str, Any]] = {
    "no": "no",
    "on": "on",
    "Yes": "Yes",
    "true": True,
    "FALSE": False,
    "null": None,
    "~": None,
    "": None,
    "012": 12,
    "0o14": 12,
    "0x1F": 31,
    "-7": -7,
    "1e3": 1000.0,
    ".5": 0.5,
    "1_000": "1_000",
    "1:30": "1:30",
    "2024-01-01": "2024-01-01",
    "0b11": "0b11",
    "9223372036854775807": 2**63 - 1,
    "9223372036854775808": "9223372036854775808",
    "=": "=",
    "١٢": "١٢",
}


def plain(text: str) -> Any:
    """The only document of a text, which has no errors."""
    parsed = parse(text.encode(), "a.yaml")
    assert not parsed.errors
    (document,) = parsed.documents
    assert not document.errors, document.errors
    return document.plain()


def tree(text: str) -> Tree:
    return parse(text.encode(), "a.yaml").documents[0].tree


def every_error(parsed: ParsedFile) -> list[str]:
    """Errors of the file and of its documents."""
    found = [*parsed.errors, *(error for document in parsed.documents for error in document.errors)]
    return [str(error) for error in found]


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_plain_scalars_are_of_the_core_schema(text: str, value: object) -> None:
    found = plain(f"a: {text}\n")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["012", "1.10", "true", "0x1F", "~", "1e3"])
def test_a_scalar_that_is_no_text_keeps_its_text(text: str) -> None:
    assert tree(f"a: [{text}]\n").text(("a", 0)) == text


def test_quoted_and_block_scalars_are_texts() -> None:
    assert plain("a: '012'\nb: \"true\"\nc: |\n  1\nd: !!str 5\n") == {
        "a": "012",
        "b": "true",
        "c": "1\n",
        "d": "5",
    }


def test_core_tags_are_obeyed() -> None:
    assert plain("a: !!int 0x10\nb: !!float 3\nc: !!null ~\nd: !!seq [1]\ne: !!map {}\n") == {
        "a": 16,
        "b": 3.0,
        "c": None,
        "d": [1],
        "e": {},
    }


def test_places_are_of_key_and_value() -> None:
    found = tree("# a comment\na:\n  - b: {c: 1}\n    é: x\n")
    assert found.spot(("a", 0, "b", "c"))[1:] == (3, 12)
    assert found.spot(("a", 0, "b", "c"), key=True)[1:] == (3, 9)
    assert found.spot(("a", 0, "é"))[1:] == (4, 8)
    assert found.spot(("a", 0))[1:] == (3, 5)
    assert found.root[1:] == (2, 1)


def test_what_is_absent_is_placed_where_it_would_be() -> None:
    assert tree("a: {b: 1}\n").spot(("a", "z", 0))[1:] == (1, 4)


def test_merges_are_overridden_by_own_keys_and_by_earlier_ones() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 0\n"
    assert plain(text)["z"] == {"a": 0, "b": 1, "c": 2}


def test_a_quoted_merge_key_is_a_key() -> None:
    assert plain("a: {'<<': 1}\n") == {"a": {"<<": 1}}


def test_a_merged_value_keeps_its_place_and_its_text() -> None:
    found = tree("x: &x\n  a: 012\nz: {<<: *x}\n")
    assert found.spot(("z", "a"))[1:] == (2, 6)
    assert found.text(("z", "a")) == "012"


def test_a_duplicate_is_an_error_even_beside_a_merge() -> None:
    assert every_error(parse(b"x: &x {a: 1}\nz: {<<: *x, a: 2, a: 3}\n", "a.yaml")) == [
        "a.yaml:2:19: z.a: duplicate key; it is in line 2 already; keep one of them"
    ]


def test_several_documents_have_places_of_their_own() -> None:
    parsed = parse(b"a: 1\n---\n\nb: 2\n", "a.yaml")
    assert [document.tree.root.line for document in parsed.documents] == [1, 4]


def test_an_error_of_one_document_is_not_one_of_another() -> None:
    parsed = parse(b"a: 1\na: 2\n---\nb: 2\n", "a.yaml")
    assert [len(document.errors) for document in parsed.documents] == [1, 0]


def test_a_byte_order_mark_is_no_content() -> None:
    assert plain("\ufeffa: 1\n") == {"a": 1}


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r"])
def test_every_line_break_counts(break_: str) -> None:
    parsed = parse(break_.join(["a: 1", "b: 2", "a: 3", ""]).encode(), "a.yaml")
    assert every_error(parsed) == ["a.yaml:3:1: a: duplicate key; it is in line 1 already; keep one of them"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"a: 1\nb: \xff\n", "a.yaml:2:4: is not UTF-8; save the file as UTF-8"),
        (b"\xfe\xffa", "a.yaml:1:1: is not UTF-8; save the file as UTF-8"),
        ("é: \x07\n".encode(), "a.yaml:1:4: "),
        (b"a: 1\n\tb: 2\n", "a.yaml:2:1: a tab cannot indent; use spaces"),
        (b"a:\n  - b\n c\n", "a.yaml:3:2: "),
    ],
)
def test_what_is_no_yaml_is_one_error_of_the_file(text: bytes, error: str) -> None:
    parsed = parse(text, "a.yaml")
    assert parsed.documents == ()
    (found,) = parsed.errors
    assert str(found).startswith(error)


LAUGHS: Final = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


def test_a_billion_laughs_are_refused_at_once() -> None:
    before = time.process_time()
    errors = every_error(parse(LAUGHS.encode(), "a.yaml"))
    assert time.process_time() - before < 1
    assert ["holds at most 100,000 values, aliases counted in full" in error for error in errors] == [True]


def test_merges_cannot_multiply_without_bounds() -> None:
    base = "b0: &b0 {" + ", ".join(f"k{n}: 1" for n in range(100)) + "}\n"
    text = base + "c:\n" + "".join("  - {<<: *b0}\n" for _ in range(600))
    assert "aliases counted in full" in every_error(parse(text.encode(), "a.yaml"))[0]


def test_an_alias_is_counted_as_deep_as_it_stands() -> None:
    deep = "a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 30 + "*a" + "]" * 30 + "\n"
    (error,) = every_error(parse(deep.encode(), "a.yaml"))
    assert error.startswith("a.yaml:1:4: b[0]")  # where it is written
    assert error.endswith("nested deeper than 64 levels")


@pytest.mark.parametrize("depth", [65, 900, 5000, 100_000])
@pytest.mark.parametrize(("before", "after"), [("[", "]"), ("{a: ", "}"), ("- ", "")])
def test_what_is_nested_too_deeply_is_an_error(depth: int, before: str, after: str) -> None:
    (error,) = every_error(parse((before * depth + after * depth).encode(), "a.yaml"))
    assert "nested deeper than 64 levels" in error


def test_64_levels_are_allowed() -> None:
    assert every_error(parse(("[" * 64 + "]" * 64).encode(), "a.yaml")) == []


def test_many_documents_together_are_bounded() -> None:
    text = "---\n- [1, 2, 3]\n" * 7
    (error,) = every_error(parse(text.encode(), "a.yaml", limits=Limits(depth=4, nodes=10, file_nodes=30)))
    assert error == "a.yaml: has more than 30 values, aliases counted in full; split it into several files"


def test_a_huge_number_takes_no_time() -> None:
    before = time.process_time()
    parse(b"a: " + b"9" * 1_000_000, "a.yaml")
    assert time.process_time() - before < 1


yaml_like = st.text(
    st.sampled_from(list("abk:-?[]{}&*!|>'\"%@`#,<~.0123456789 \n\t\\\u00e9\x00\x85\u2028\ud7ff")),
    max_size=60,
)


@given(yaml_like | st.text(max_size=60))
def test_no_text_raises(text: str) -> None:
    parse(text.encode("utf-8", "surrogatepass"), "a.yaml")


@given(st.binary(max_size=80))
def test_no_bytes_raise(content: bytes) -> None:
    parse(content, "a.yaml")


# A writer of YAML 1.1 leaves what only YAML 1.2 reads as a number without quotes: 1e5, 0o7.
only_later_a_number = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+|0o[0-7]+")
texts = st.text(
    st.characters(exclude_characters="\x85\u2028\u2029", exclude_categories=["Cs"]), max_size=6
).filter(lambda text: only_later_a_number.fullmatch(text) is None)
leaves = texts | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none()
data = st.recursive(
    leaves, lambda held: st.lists(held, max_size=4) | st.dictionaries(texts, held, max_size=4), max_leaves=12
)


@given(st.dictionaries(texts, data, min_size=1, max_size=4))
def test_what_a_yaml_writer_writes_is_read_back(value: dict[str, Any]) -> None:
    assert plain(yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=True)) == value


@given(yaml_like)
def test_the_parser_in_python_finds_the_same(text: str) -> None:
    assume("!" not in text)  # a lone ! is text to libyaml alone
    quick = parse(text.encode(), "a.yaml")
    slow = parse(text.encode(), "a.yaml", loader=PythonLoader)
    if quick.errors or slow.errors:  # libyaml is laxer here and there; neither raises
        return
    assert [document.plain() for document in quick.documents] == [
        document.plain() for document in slow.documents
    ]
