"""The one error of the test bed: a message for a person, with what to do about it."""


class BedError(Exception):
    """Something in the environment or in an option is wrong; the text says what, and what to do."""
