"""The signature that a client with an access key puts on every request, and its check.

```
content   = the VALUES of all ext fields but `Signature`, in UTF-16 order of their keys, without separators; the body
Signature = Base64( HMAC-SHA1( key: secret key as UTF-8, content ) )
```
Clients sign last: `ns`, `bname`, zone and the like take part, and so do a V2 header's one-letter names. Brokers leave
out the field `_UNIQUE_KEY_QUERY` for clients up to 4.9.3, which add it after signing.
Source: remoting.md §3 (Apache AclClientRPCHook, AclUtils; the same bytes in 4.x and 5.x).
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

ACCESS_KEY: Final = "AccessKey"
SIGNATURE: Final = "Signature"
SECURITY_TOKEN: Final = "SecurityToken"  # noqa: S105 — the field's name, no secret
CREDENTIALS: Final = frozenset({ACCESS_KEY, SIGNATURE, SECURITY_TOKEN})
"""Ext fields that are never shown."""
UNIQUE_KEY_QUERY: Final = "_UNIQUE_KEY_QUERY"

UNIQUE_KEY_QUERY_UNSIGNED_VERSION_MAX: Final = 399
"""Clients up to this version (V4_9_3) add `_UNIQUE_KEY_QUERY` to a request that is signed already."""


def sign(ext_fields: Mapping[str, str], body: bytes, secret_key: str) -> str:
    """The value of `Signature` for a request with these ext fields, `AccessKey` among them."""
    digest = hmac.digest(secret_key.encode(), _content(ext_fields, body, {SIGNATURE}), hashlib.sha1)
    return base64.b64encode(digest).decode()


def is_signed_by(ext_fields: Mapping[str, str] | None, body: bytes, secret_key: str, client_version: int) -> bool:
    """Whether the request carries the signature of this secret key. Compares in constant time."""
    fields = ext_fields or {}
    unsigned = {SIGNATURE}
    if client_version <= UNIQUE_KEY_QUERY_UNSIGNED_VERSION_MAX:
        unsigned.add(UNIQUE_KEY_QUERY)
    digest = hmac.digest(secret_key.encode(), _content(fields, body, unsigned), hashlib.sha1)
    return hmac.compare_digest(base64.b64encode(digest), fields.get(SIGNATURE, "").encode(errors="replace"))


def _content(ext_fields: Mapping[str, str], body: bytes, unsigned: set[str]) -> bytes:
    # Java sorts strings by UTF-16 units, which is not the order of code points beyond the basic plane.
    names = sorted(ext_fields.keys() - unsigned, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
    return "".join([ext_fields[name] for name in names]).encode(errors="replace") + body
