# SPDX-License-Identifier: Apache-2.0
"""A world to try pcmig's steering in: QEMU, guests and links simulated around the real csrc/core."""
