"""Stubs of the part of etcd's v3 API that the controller calls."""
