"""Asyncio producer and consumer for RocketMQ's Remoting protocol."""
