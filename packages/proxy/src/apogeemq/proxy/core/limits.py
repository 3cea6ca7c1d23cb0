"""Every bound on what clients may ask and keep. The app builds it from the settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds, defaults as in Apache's proxy where it has them.

    Sizes in bytes of UTF-8; durations in the unit of the name.
    """

    body_size_bytes_max: int = 4 * 1024 * 1024
    user_properties_max: int = 128
    properties_size_bytes_max: int = 16 * 1024
    message_group_size_bytes_max: int = 63
    messages_per_send_max: int = 1024
    entries_per_ack_max: int = 1024
    recovery_duration_s_max: int = 3600
    delivery_delay_s_max: int = 24 * 3600
    receive_batch_size_max: int = 32
    invisible_time_ms_min: int = 10_000
    invisible_time_ms_max: int = 12 * 3600 * 1000
    polling_time_ms_min: int = 5_000
    polling_time_ms_max: int = 20_000
    filter_expression_size_bytes_max: int = 4096
    clients_max: int = 50_000
    streams_per_client_max: int = 64
    """Telemetry streams of one client id at a time. Clients open one for each endpoint of the route."""
    topics_per_client_max: int = 1024
    settings_size_bytes_max: int = 256 * 1024
    """One client's settings, which are kept: what is in a thousand topics' names and filters, not a whole request."""
    all_settings_size_bytes_max: int = 256 * 1024 * 1024
    """The settings of all clients together, in the measure of core/settings.py."""
    client_expiry_s: float = 120.0
    commands_per_10_s_max: int = 200
    """Telemetry commands of one stream; a client sends one every five minutes, and one per subscription change."""
    renewals_per_client_max: int = 10_000
    renewals_max: int = 500_000
    message_types_checked: bool = True
    """Whether a message must be of a kind that its topic takes."""
    broker_timeout_s: float = 2.0
    """One call to a broker, unless the client's deadline is sooner."""
    master_wait_s: float = 10.0
    """How long a request waits for a master, unless the client's deadline is sooner; 0: it is refused at once."""
