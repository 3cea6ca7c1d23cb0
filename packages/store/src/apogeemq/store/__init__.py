"""RocketMQ-compatible commit log and consume queues on a disk that is handed in."""
