"""Doors: each turns one protocol into calls on the services."""
