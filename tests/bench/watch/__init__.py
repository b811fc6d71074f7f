# SPDX-License-Identifier: Apache-2.0
"""What it costs a migration to be watched."""
