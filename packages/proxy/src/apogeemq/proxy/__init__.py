"""ApogeeMQ proxy: the stateless front for gRPC and Remoting clients."""
