# SPDX-License-Identifier: Apache-2.0
"""OVN in user space: three hosts, a guest that moves between two of them, and who reaches it meanwhile."""
