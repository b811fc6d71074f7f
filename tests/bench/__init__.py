# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: long runs that print figures. They are no tests; their pure parts have theirs in tests/unit."""
