"""The doors of the name server: Remoting for clients, mesh for brokers and proxies."""
