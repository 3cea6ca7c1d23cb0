"""What importing a module of the mesh pulls in: a process pays only for what it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("grpc", "google.protobuf", "opentelemetry", "opentelemetry.sdk", "msgspec", "h11", "uvloop")


def heavy_imports(module: str) -> set[str]:
    """Import a module in a fresh interpreter and list the heavy packages that came along."""
    program = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("apogeemq.mesh.clock", set()),
        ("apogeemq.mesh.chance", set()),
        ("apogeemq.mesh.errors", set()),
        ("apogeemq.mesh.network", set()),
        ("apogeemq.mesh.trace_context", set()),
        ("apogeemq.mesh.memory_network", set()),
        ("apogeemq.mesh.lifecycle", set()),
        ("apogeemq.mesh.metrics", set()),
        ("apogeemq.mesh.config", {"msgspec"}),
        ("apogeemq.mesh.telemetry", {"opentelemetry"}),
    ],
)
def test_imports(module: str, allowed: set[str]) -> None:
    """Ports and pure modules import nothing heavy; telemetry leaves the SDK alone until it is set up."""
    assert heavy_imports(module) <= allowed
