# SPDX-License-Identifier: Apache-2.0
"""Figures of this host's migrations for Prometheus; doc/operate/metrics.rst says what each means.

`families` names them, `account` makes counts of an ended migration, `store` keeps the counts and what runs,
`exposition` makes the text, `meter` does all of it for a program. The text needs the library
`prometheus-client`, the rest does not: what is counted without is there when it comes.
"""
