"""Decisions without socket, clock or chance inside: each is handed in."""
