"""What Remoting clients ask a proxy."""
