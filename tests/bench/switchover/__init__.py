# SPDX-License-Identifier: Apache-2.0
"""What switching to post-copy costs the guest: virsh, a poll of the statistics, pcmig."""
