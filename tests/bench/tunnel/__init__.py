# SPDX-License-Identifier: Apache-2.0
"""What the encrypted tunnel costs, against other tunnels: see tests/bench/README.rst."""
