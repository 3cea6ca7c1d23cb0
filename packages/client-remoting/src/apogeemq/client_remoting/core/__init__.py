"""The clients' rules without I/O: time, chance and bytes are handed in."""
