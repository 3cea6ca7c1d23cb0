"""Tables and rules of a broker: no socket, loop, clock or file; time and chance are handed in."""
