"""What both ApogeeMQ clients share: messages, typed topics, handlers, errors, trace propagation."""
