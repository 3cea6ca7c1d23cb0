"""What every ApogeeMQ service process shares: ports to the world, config, lifecycle, telemetry, mesh networks."""
