"""Replication as step machines: a broker's role, a master's progress, a replica's way back to its master's log."""
