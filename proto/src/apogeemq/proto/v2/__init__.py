"""RocketMQ's public gRPC API, version 2: generated messages and enums."""
