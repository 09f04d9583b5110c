"""The names of the data sets, in a module without imports: a command line is read before torch is imported."""

from typing import Literal, get_args

DataName = Literal["digits", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet", "folder"]
DATA_NAMES: tuple[DataName, ...] = get_args(DataName)
