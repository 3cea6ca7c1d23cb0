"""The mesh door: what proxies ask a broker (proto/apogeemq/mesh/v1/broker.proto), one function per call."""
