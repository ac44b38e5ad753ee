"""Text of others made visible: what would hide, reorder or control is shown as its escape.

Names, labels, commit messages and node attributes come from people and machines we do not trust. Escaping for HTML
is Jinja's; this is about what HTML lets through.
"""

import re
from typing import Final

# C0 but tab and line feed, DEL and C1, soft hyphen and other invisibles, bidirectional controls, lone surrogates.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""*text* with everything unseen as `\x1b`, `\u202e`, …"""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)
