# SPDX-License-Identifier: Apache-2.0
"""pcmig: post-copy live migration for OpenStack and libvirt hosts."""
