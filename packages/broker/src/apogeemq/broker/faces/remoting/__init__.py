"""The Remoting door: request code → function, one module per family."""
