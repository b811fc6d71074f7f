# SPDX-License-Identifier: Apache-2.0
"""Kept ledgers as a page for people: `figures` draws, `facts` puts into words, `page` makes HTML of both and
`paper` a PDF. Only `figures` and `paper` need matplotlib."""
