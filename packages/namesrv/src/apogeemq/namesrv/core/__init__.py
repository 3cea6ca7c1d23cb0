"""What the name server knows and decides; no socket, clock, file or event loop in here."""
