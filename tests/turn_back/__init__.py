# SPDX-License-Identifier: Apache-2.0
"""Guests that turn back, over moments and versions of QEMU. By name: tools/test turn-back."""
