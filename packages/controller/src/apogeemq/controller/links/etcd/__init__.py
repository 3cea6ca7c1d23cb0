"""The client of etcd's v3 API: members that are taken in turn, calls, leases, watches."""
