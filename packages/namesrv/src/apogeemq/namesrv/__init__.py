"""ApogeeMQ name server: topic routes and broker liveness."""
