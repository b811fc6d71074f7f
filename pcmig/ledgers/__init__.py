# SPDX-License-Identifier: Apache-2.0
"""Kept ledgers: one JSON document for each migration that has ended, in a folder of the host.

`document` makes them, `store` keeps and finds them, `opening` takes what else can be read as one. The format
is in schema.json, described in doc/operate/report.rst.
"""
