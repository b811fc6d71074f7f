# SPDX-License-Identifier: Apache-2.0
"""Pre-copy, post-copy and both, by load of the guest and rate of the link: see tests/bench/README.rst."""
