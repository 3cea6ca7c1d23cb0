"""What the proxy does for clients, whatever protocol they came by."""
