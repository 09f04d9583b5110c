"""What the features in a folder are of: written before them, compared before more are added and before a search."""

import hashlib
import re
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from timm.data.config import resolve_model_data_config
from torch import nn

from ssl_adapt.embedding.feature_parts import FileFormat, Part, Split, plan_parts
from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_text
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count
from ssl_adapt.runs.atomic_file import write_text

MANIFEST = "_manifest.json"  # pandas and datasets read no files whose names begin so
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the text of a function


class Manifest(Section):
    """Everything that the features in a folder depend on.

    Attributes:
        network: the name for `timm.create_model`; the path of a folder is absolute.
        pretrained: whether its weights were loaded, not drawn.
        weights: the SHA-256 of the network's modules and weights.
        data: the name of the data set.
        root: where the images were, or None.
        image_px: side of the images.
        mean: of each channel, for pixels in [0, 1].
        std: likewise.
        batch_size: images that the network saw at a time, on which the last bits depend.
        part_rows: images of a file.
        format: of the files.
        counts: how many images each split has.
        images: the SHA-256 of the names and classes of all images, in order.
        made_with: the versions of what computed the features; not compared.
        format_version: of this file.
    """

    network: str
    pretrained: bool
    weights: str
    data: str
    root: str | None
    image_px: Count
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: Count
    part_rows: Count
    format: FileFormat
    counts: dict[Split, Count]  # of what becomes names of files
    images: str
    made_with: dict[str, str] = Field(default_factory=lambda: {name: version(name) for name in ("ssl-adapt", "torch")})
    format_version: Literal[1] = 1

    @property
    def parts(self) -> list[Part]:
        """The files that the folder holds in the end."""
        return plan_parts(self.counts, self.part_rows, self.format)


# the same model or images may lie elsewhere
_COMPARED = {
    "weights": "other weights",
    "data": "other images",
    "counts": "other images",
    "images": "other images",
    "image_px": "images of another size",
    "mean": "another normalisation",
    "std": "another normalisation",
    "batch_size": "another batch_size",
    "part_rows": "files of another length",
    "format": "another format",
}


def network_checksum(network: nn.Module) -> str:
    """The SHA-256 of a network: of its modules, as they are printed, and of its parameters and buffers, in hex."""
    digest = hashlib.sha256(_ADDRESS.sub("", str(network)).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def normalisation(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std of each channel that the network's own configuration names."""
    config = resolve_model_data_config(network)
    return tuple(map(float, config["mean"])), tuple(map(float, config["std"]))


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it into a folder, which exists."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of features.

    Raises:
        ValueError: there is none, or it was not written by `save_manifest`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} holds no features: type the folder that ssl-adapt embed wrote, its out=FOLDER")
    try:
        return Manifest.model_validate_json(read_text(path, str(path)))
    except ValidationError as error:
        wrong = ".".join(map(str, error.errors()[0]["loc"])) or "its text"
        raise UserError(f"{path} is not as ssl-adapt embed writes it ({wrong}): embed the images again") from None


def check_same(folder: Path, found: Manifest, wanted: Manifest) -> None:
    """Compare what is in a folder with what is to be added.

    Raises:
        ValueError: naming the first difference.
    """
    for field, words in _COMPARED.items():
        before, now = getattr(found, field), getattr(wanted, field)
        if before != now:
            raise UserError(
                f"{folder} was begun with {words} ({field} {_short(before)}, now {_short(now)}): "
                "type another out=FOLDER, or delete that one"
            )


def _short(value: object) -> str:
    return f"{value[:8]}..." if isinstance(value, str) and len(value) == 64 else str(value)
