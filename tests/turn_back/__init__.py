# SPDX-License-Identifier: Apache-2.0
"""Guests that turn back, over moments, versions of QEMU and disks. By name: tools/test turn-back."""
