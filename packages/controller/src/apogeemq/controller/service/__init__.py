"""What a controller does: the step machines, with etcd, brokers' streams and time around them."""
