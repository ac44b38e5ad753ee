"""Text of others on its way to a terminal."""

import json

import pytest

from cli.clean import clean, clean_lines, escape_in_json
from cli.output import json_text, yaml_text

UNSAFE = "\x1b[31m red \x07 \x7f \x9b \u202e txt \u2028 \ufeff \ud800 \U000e0041"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ü and 漢", "plain, ü and 漢"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b1m", "\\x9b1m"),
        ("a\u202eb", "a\\u202eb"),
        ("\ud800", "\\ud800"),
    ],
)
def test_unsafe_characters_show_as_escapes(text: str, shown: str) -> None:
    """One line comes out, and nothing in it that a terminal obeys."""
    assert clean(text) == shown


def test_log_text_keeps_lines_and_tabs() -> None:
    """Line breaks and tabs of a log are its own; a lone carriage return would overwrite a line."""
    assert clean_lines("a\tb\r\nc\rd\x1b[1m\n") == "a\tb\nc\\rd\\x1b[1m\n"


def test_json_of_unsafe_text_is_safe_and_reads_back_equal() -> None:
    """`-o json` on a terminal cannot be used to write there what JSON leaves raw."""
    text = json_text({"name": UNSAFE})
    assert json.loads(text) == {"name": UNSAFE}
    assert all(character >= " " or character == "\n" for character in text)
    assert not set("\x7f\x9b\u202e\u2028\ufeff") & set(text)


def test_yaml_of_unsafe_text_is_safe() -> None:
    """`-o yaml` writes such a string in double quotes, where escapes are read."""
    text = yaml_text([{"name": "a\u202eb", "plain": "ü"}])
    assert text == '- name: "a\\u202eb"\n  plain: ü\n'


def test_characters_beyond_16_bits_become_a_pair() -> None:
    """JSON escapes know 16 bits only."""
    assert json.loads(escape_in_json('"\U000e0041"')) == "\U000e0041"
