# SPDX-License-Identifier: Apache-2.0
"""What several of pcmig's packages share: what is decided of a request, what nova-api and nova-compute say to
each other, and the words and figures that people read.

Pure Python; only `messages` needs Nova, which is there where it is used.
"""
