"""The asyncio shell: channels, a server and a client. Everything protocol is in the sans-IO modules above."""

from apogeemq.remoting_codec.aio.channel import Buffer, Channel, ChannelClosed, ChannelLimits, Handler, Reply
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.aio.server import RemotingServer, ServerLimits, TlsMode
from apogeemq.remoting_codec.aio.stats import ServerStats, TrafficStats

__all__ = [
    "Buffer",
    "Channel",
    "ChannelClosed",
    "ChannelLimits",
    "Handler",
    "RemotingClient",
    "RemotingServer",
    "Reply",
    "ServerLimits",
    "ServerStats",
    "TlsMode",
    "TrafficStats",
]
