"""Text of others (specs, logs, commit messages, node attributes) made safe to print.

Whatever could move the cursor, change colours, hide or reorder what a person reads is shown as its escape:
C0 and C1 controls, DEL, bidirectional and invisible format characters, line separators, lone surrogates.
"""

import re
from typing import Final

_UNSAFE_CLASS: Final = (
    "\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f"
)
_UNSAFE: Final = re.compile(f"[\x00-\x1f{_UNSAFE_CLASS}]")
_UNSAFE_IN_LOGS: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSAFE_CLASS}]")
UNSAFE_IN_JSON: Final = re.compile(f"[{_UNSAFE_CLASS}]")
"""What JSON and YAML writers leave raw inside strings."""

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def clean(text: str) -> str:
    r"""*text* on one line, everything unsafe as its escape (`\n`, `\x1b`, `\u202e`)."""
    return _UNSAFE.sub(_escape, text)


def clean_lines(text: str) -> str:
    r"""*text* with its line breaks and tabs kept, all else unsafe as its escape; `\r\n` is a line break."""
    return _UNSAFE_IN_LOGS.sub(_escape, text.replace("\r\n", "\n"))


def escape_in_json(text: str) -> str:
    r"""JSON text (or double-quoted YAML) with unsafe characters of its strings as `\uXXXX`."""
    return UNSAFE_IN_JSON.sub(_escape_utf16, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_utf16(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
