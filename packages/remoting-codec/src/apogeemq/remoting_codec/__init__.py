"""RocketMQ Remoting frames, headers, bodies, messages and stored records: bytes to values and back, sans-IO, with a thin asyncio shell."""
