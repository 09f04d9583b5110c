"""The names that a user gives to where images and labels are in a table or in samples."""

from typing import NamedTuple


class Columns(NamedTuple):
    """Where the image and the label are: a table's column; in shards an ending, or a key of JSON; None: found."""

    image: str | None = None
    label: str | None = None
