"""Signatures of webhooks, as Standard Webhooks writes them: an HMAC over id, time and body.

What trueup sends is signed so, and GitLab's signing tokens are checked so. https://www.standardwebhooks.com
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

_ENCODED: Final = "whsec_"


def begin(secret: str, webhook_id: str, timestamp: str) -> "hmac.HMAC":
    """The digest before the body, which is to be put in by `update`."""
    return hmac.new(_key(secret), f"{webhook_id}.{timestamp}.".encode(), hashlib.sha256)


def finish(digest: "hmac.HMAC") -> str:
    """The signature as its header has it: `v1,` and base64."""
    return f"v1,{base64.b64encode(digest.digest()).decode()}"


def sign(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """The whole of it for a body that is at hand."""
    digest = begin(secret, webhook_id, timestamp)
    digest.update(body)
    return finish(digest)


def _key(secret: str) -> bytes:
    """What stands behind `whsec_` is base64 of the key; any other secret is the key as it is written."""
    if secret.startswith(_ENCODED):
        try:
            return base64.b64decode(secret.removeprefix(_ENCODED), validate=True)
        except binascii.Error:
            pass
    return secret.encode()
