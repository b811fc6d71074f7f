# SPDX-License-Identifier: Apache-2.0
"""The one error of the test bed: a message for a person, with what to do about it."""


class BedError(Exception):
    """Something in the environment or in an option is wrong; the text says what, and what to do."""


class StackError(BedError):
    """These packages of QEMU and libvirt cannot be had, or do not work here: another stack may."""
