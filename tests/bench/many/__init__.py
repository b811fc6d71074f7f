# SPDX-License-Identifier: Apache-2.0
"""What it costs guests to leave one host at the same time: virsh, pcmig."""
