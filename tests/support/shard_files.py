"""WebDataset shards for the tests: a sample's image, its class as text or JSON, and more."""

import io
import json
from pathlib import Path

import torch
from image_folders import Member, png, write_tar
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor


def sample(seed: int, label: str | int | None, *, as_json: bool = False) -> list[Member]:
    """A sample whose key and PNG come from the seed."""
    label_member: list[Member] = []
    if as_json:
        label_member = [(f"{seed:04d}.json", json.dumps({"label": label, "caption": "a cat"}).encode())]
    elif label is not None:
        label_member = [(f"{seed:04d}.cls", str(label).encode())]
    return [*label_member, (f"{seed:04d}.png", png(seed)), (f"{seed:04d}.txt", b"a cat")]


def write_shards(folder: Path, counts: dict[str, int], classes: int = 3) -> list[int]:
    """A shard of so many samples for each name; the label of each, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = [seed * 7 % classes for seed in range(sum(counts.values()))]
    start = 0
    for name, count in counts.items():
        members = [member for seed in range(start, start + count) for member in sample(seed, labels[seed])]
        write_tar(folder / name, *members)
        start += count
    return labels


def pixels(*seeds: int) -> torch.Tensor:
    """The images of the samples."""
    return torch.stack([pil_to_tensor(Image.open(io.BytesIO(png(seed)))) for seed in seeds])
