"""What the shells count: plain ints, bumped where things happen and read when metrics are scraped."""

from dataclasses import dataclass


@dataclass(slots=True)
class TrafficStats:
    """Traffic of one or more channels.

    `protocol_errors` are broken frames, each of which ended its connection. `requests_refused` are requests whose
    header or body the peer got wrong, `handler_errors` those on which a handler failed; both were answered.
    """

    frames_in: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    protocol_errors: int = 0
    requests_refused: int = 0
    handler_errors: int = 0


@dataclass(slots=True)
class ServerStats(TrafficStats):
    """Traffic and connections of a server.

    `connections_refused`: closed before they became a channel (too many, no or wrong TLS, nothing sent in time).
    `connections_cut`: channels ended by a bound or a deadline (slow reader, idle, a frame that never completed).
    """

    connections_open: int = 0
    connections_accepted: int = 0
    connections_refused: int = 0
    connections_cut: int = 0
