"""How a broker of a set tells that it is not master now, in words that clients can tell from those of a full disk.

Apache's brokers have one code, SERVICE_NOT_AVAILABLE, for a slave, a full disk and a broker that stops. Of the three
only the first is over within a moment, at another address; hence a remark that begins in a fixed way.
"""

from __future__ import annotations

from typing import Final

from apogeemq.remoting_codec.codes import ResponseCode

NOT_MASTER: Final = "not master now: "
"""What the remark begins with. Nothing was stored, nothing changed."""


def is_not_master(code: int, remark: str | None) -> bool:
    """Whether a refusal says that the master of this broker's set is to be looked for elsewhere."""
    return code == ResponseCode.SERVICE_NOT_AVAILABLE and remark is not None and remark.startswith(NOT_MASTER)
