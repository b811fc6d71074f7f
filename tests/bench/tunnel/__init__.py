"""What the encrypted tunnel costs, against other tunnels: see tests/bench/README.rst."""
