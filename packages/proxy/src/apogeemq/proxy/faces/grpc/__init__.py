"""The gRPC door and what stands behind it."""
