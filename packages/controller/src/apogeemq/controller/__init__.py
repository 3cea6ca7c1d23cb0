"""Broker-set membership and master election under etcd leases."""
