# SPDX-License-Identifier: Apache-2.0
"""The fault matrix: what breaks in a live migration, and what becomes of the guest. See README.rst."""
