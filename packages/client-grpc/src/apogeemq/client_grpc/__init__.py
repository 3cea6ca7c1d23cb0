"""Asyncio producer and consumers for RocketMQ's gRPC protocol."""
