"""Errors that a user can correct: the message is one sentence that says what is wrong and what to do."""


class UserError(ValueError):
    """A mistake in the user's input: an argument, a recipe, a file or an image."""


class DivergedError(UserError, FloatingPointError):
    """A loss or a gradient is no longer finite."""
