"""What requests and answers mean, as functions and state of plain values: no I/O, no clock, no chance."""
