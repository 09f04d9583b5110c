"""Data sets by name: `load_image_splits` loads one, `iterate_batches` yields its uint8 batches on the device."""

from ssl_adapt.data.batches import Batch, Decoder, epoch_order, iterate_batches
from ssl_adapt.data.columns import Columns
from ssl_adapt.data.image_set import ImageSet, ImageSplits
from ssl_adapt.data.sources import load_image_splits
from ssl_adapt.data_names import DATA_NAMES

__all__ = [
    "DATA_NAMES",
    "Batch",
    "Columns",
    "Decoder",
    "ImageSet",
    "ImageSplits",
    "epoch_order",
    "iterate_batches",
    "load_image_splits",
]
