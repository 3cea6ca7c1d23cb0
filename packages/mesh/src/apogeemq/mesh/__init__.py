"""What every ApogeeMQ service process shares: clock, chance and network ports, config, lifecycle, telemetry, gRPC server and channel."""
