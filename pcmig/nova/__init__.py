"""pcmig inside nova-compute.

Importing this package, `flags` and `choice` needs neither Nova nor oslo.config; see the modules.
"""
