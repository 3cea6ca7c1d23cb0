"""ApogeeMQ all in one: every service in one process, and the apogeemq command."""
