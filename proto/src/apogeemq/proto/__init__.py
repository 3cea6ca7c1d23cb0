"""Protobuf classes of RocketMQ's public gRPC API, able to share a process with the official client's."""
