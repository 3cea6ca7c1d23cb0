"""Connections that the controller opens."""
