"""Image files as a dataset of pixels, in which unreadable ones can be replaced."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ssl_adapt.data.image_source import ImageFiles
from ssl_adapt.data.pixels import decode_pixels
from ssl_adapt.errors import UserError

OnBadImage = Literal["error", "replace"]

_MAX_FILE_BYTES = 2**30


@dataclass(frozen=True)
class FileImages:
    """A map-style dataset over named files: uint8 (3, image_px, image_px) each.

    With `on_bad_image="replace"` an image that cannot be read is replaced by the next readable one of its class, in
    the order of `names`, starting again after the last. The choice depends on the files alone. `bad_images` maps
    the name of every unreadable image to the reason, and grows as images are read.
    """

    files: ImageFiles
    names: tuple[str, ...]
    classes: tuple[str | None, ...]
    image_px: int
    on_bad_image: OnBadImage
    bad_images: dict[str, str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        for candidate in self._candidates(index):
            name = self.names[candidate]
            try:
                return self._decode(name)
            # Pillow's decoders raise many kinds of errors on broken files, and a MemoryError on some.
            except Exception as error:
                reason = _describe(error)
                if self.on_bad_image == "error":
                    raise UserError(bad_image_sentence(self.files, name, reason)) from error
                self.bad_images[name] = reason
        name, label = self.names[index], self.classes[index]
        kind = "image" if label is None else f"image of class {label!r}"
        raise UserError(
            f"no {kind} in {self.files.root} can be read, not {name!r} ({self.bad_images[name]}) nor any other: "
            "replace or remove them"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        for place in range(index, index + len(self.names)):
            candidate = place % len(self.names)
            if self.classes[candidate] == self.classes[index]:
                yield candidate

    def _decode(self, name: str) -> Tensor:
        content = self.files.read(name, max_bytes=_MAX_FILE_BYTES)
        if content is None:
            raise UserError("it is no file, or a link to none")
        if len(content) > _MAX_FILE_BYTES:
            raise UserError(f"it is larger than {_MAX_FILE_BYTES:,} bytes")
        return decode_pixels(content, self.image_px)


def bad_image_sentence(files: ImageFiles, name: str, reason: str) -> str:
    """The error message for an unreadable image."""
    return (
        f"cannot read the image {name!r} in {files.root} ({reason}): replace or remove it, "
        "or train with data.on_bad_image=replace"
    )


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "its pixels need more memory than there is"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    known = isinstance(error, (OSError, ValueError, SyntaxError)) and text
    return " ".join(text.split()) if known else f"{type(error).__name__}: {text}"
