"""The load generator and the measurements of `./task bench`."""
