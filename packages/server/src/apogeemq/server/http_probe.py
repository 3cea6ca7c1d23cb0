"""The status of a plain HTTP GET, for probes of processes on this machine."""

from __future__ import annotations

import asyncio

STATUS_LINE_BYTES_MAX = 1024


async def status_of(address: str, path: str, *, timeout_s: float) -> int:
    """Ask "host:port"; gives the status, 0 for an answer that is no HTTP. Errors: OSError, TimeoutError."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=STATUS_LINE_BYTES_MAX)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
            words = (await reader.readline()).split()
        except ValueError:
            return 0
        finally:
            writer.close()
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0
