"""Errors that a user can mend: their message is one sentence that says what is wrong and what to do."""


class UserError(ValueError):
    """What is wrong in what was given: an argument, a recipe, a file, an image."""


class DivergedError(UserError, FloatingPointError):
    """A loss or a gradient is no longer finite."""
