# SPDX-License-Identifier: Apache-2.0
"""Hosts that are reached as operators reach them: over ssh and TLS, from a terminal."""
