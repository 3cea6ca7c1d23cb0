"""Probes and scrapes as others do them: plain HTTP by the standard library, metrics by Prometheus's own parser."""

import json
import ssl
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 20.0


def get(address: str, path: str, *, tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Status and body of a GET at "host:port". OSError when nobody answers."""
    scheme = "http" if tls is None else "https"
    try:
        with urllib.request.urlopen(f"{scheme}://{address}{path}", timeout=TIMEOUT_S, context=tls) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def readiness(address: str) -> tuple[int, dict[str, dict[str, object]]]:
    """Status of /readyz, and its checks by name."""
    status, body = get(address, "/readyz")
    checks: dict[str, dict[str, object]] = json.loads(body)["checks"]
    return status, checks


def metric(address: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels; 0 when there are none."""
    status, text = get(address, "/metrics")
    assert status == 200
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
