# SPDX-License-Identifier: Apache-2.0
"""Nova's own unit tests, with pcmig's driver in place of Nova's LibvirtDriver. See __main__."""
