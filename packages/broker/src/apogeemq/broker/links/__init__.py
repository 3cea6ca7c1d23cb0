"""The broker's outgoing connections to other services, each behind a port of the broker's own."""
