"""What the proxy asks: name servers for routes, brokers for everything else."""
