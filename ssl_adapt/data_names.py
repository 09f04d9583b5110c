"""The names of the data sets, in a module without imports: a command line is read before torch is imported."""

from typing import Literal, get_args

DataName = Literal[
    "digits", "fashion_mnist", "cifar10", "cifar100", "svhn", "stl10", "stl10_unlabeled", "tiny_imagenet",
    "folder", "csv", "hf", "webdataset",
]  # fmt: skip
DATA_NAMES: tuple[DataName, ...] = get_args(DataName)

# What data.root must be for those that have no usual place; those with columns have keys to name them.
ROOTS: dict[str, str] = {
    "folder": "PATH, a folder of images or a tar of one",
    "csv": "FILE, a CSV of paths and labels",
    "hf": "NAME, a data set of the Hugging Face hub, or FOLDER, one on disk",
    "webdataset": "PATTERN, such as 'shards/{000000..000009}.tar' or './*.tar'",
}
WITH_COLUMNS = ("csv", "hf", "webdataset")
