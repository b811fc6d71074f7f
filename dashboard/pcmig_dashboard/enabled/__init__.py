# SPDX-License-Identifier: Apache-2.0
"""The file for Horizon's folder local/enabled."""
