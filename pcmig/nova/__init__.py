# SPDX-License-Identifier: Apache-2.0
"""pcmig inside nova-compute.

Importing this package, `flags` and `choice` needs neither Nova nor oslo.config; see the modules.
"""
