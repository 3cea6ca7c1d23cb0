"""RocketMQ Remoting: frames, headers, bodies, messages and stored records as values, sans-IO, plus an asyncio shell."""
