# SPDX-License-Identifier: Apache-2.0
"""For how long a guest cannot be reached when it is switched, by way of moving it and by kind of network."""
