"""What the gRPC clients decide, without network, clock or chance: time and lots are handed in."""
