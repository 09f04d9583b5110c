"""The files of a folder of features: which rows each holds, and how they are written and read."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import one_line
from ssl_adapt.runs.atomic_file import open_whole

Split = Literal["train", "test"]
FileFormat = Literal["parquet", "npz"]

MOST_ROWS = 8192  # of a part, if a batch has no more
NO_LABEL = -1  # in an npz, which has no nulls; the name of the class is "" there


class Part(NamedTuple):
    """A file that holds the images from `start` to before `stop` of a split."""

    name: str
    split: Split
    start: int
    stop: int


class Rows(NamedTuple):
    """The rows of a part: N ids, the features (N, D), float32, and N labels and names of classes where there are."""

    split: Split
    ids: list[str]
    features: Tensor
    labels: list[int] | None
    classes: list[str] | None


def rows_of_a_part(batch_size: int) -> int:
    """How many images a part has that is not the last of its split.

    They are whole batches, so that an image is in the same batch whoever computes it: the last bits of its features
    depend on the size of the batch.
    """
    return batch_size * max(1, MOST_ROWS // batch_size)


def plan_parts(counts: Mapping[Split, int], part_rows: int, file_format: FileFormat) -> list[Part]:
    """The parts of all splits, from the number of images of each; `datasets` finds the splits by the files' names."""
    parts = []
    for split, count in counts.items():
        starts = range(0, count, part_rows)
        for index, start in enumerate(starts):
            name = f"{split}-{index:05d}-of-{len(starts):05d}.{file_format}"
            parts.append(Part(name, split, start, min(start + part_rows, count)))
    return parts


def check_format(file_format: FileFormat) -> None:
    """Raise an error if what writes the format is not installed.

    Raises:
        ValueError: pyarrow is not there.
    """
    if file_format == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise UserError(
                "parquet needs pyarrow, which is not installed: pip install 'ssl-adapt[embed]', or type format=npz"
            ) from None


def write_rows(path: Path, rows: Rows) -> None:
    """Write a part, whole or not at all; the same rows give the same bytes.

    Raises:
        OSError: if the disk is full, for example.
    """
    with open_whole(path) as file:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            # of features a dictionary only costs time
            pyarrow.parquet.write_table(_table(rows), file, use_dictionary=["split", "class_name"])
        else:
            columns: dict[str, Any] = {
                "id": np.array(rows.ids, dtype=np.str_),
                "split": np.full(len(rows.ids), rows.split),
                "label": np.array(rows.labels or [NO_LABEL] * len(rows.ids), dtype=np.int64),
                "class_name": np.array(rows.classes or [""] * len(rows.ids), dtype=np.str_),
                "features": rows.features.numpy(),
            }
            np.savez(file, **columns)


def read_features(path: Path) -> Tensor:
    """The features of a part, float32 (N, D).

    Raises:
        ValueError: the file is missing or no such part.
    """
    features = _read(path, "features")
    if features.ndim != 2 or features.dtype != np.float32:
        raise UserError(f"{path} holds no features: delete it, and run ssl-adapt embed again")
    return torch.from_numpy(features)


def read_names(path: Path) -> tuple[list[str], list[str]]:
    """The ids of a part, and the names of the classes, "" where there are none; read without the features.

    Raises:
        ValueError: the file is missing or no such part.
    """
    ids, classes = _read(path, "id").tolist(), _read(path, "class_name").tolist()
    return ids, [name or "" for name in classes]


def _table(rows: Rows) -> Any:
    import pyarrow as pa

    count, dimensions = rows.features.shape
    nulls = [None] * count
    flat = pa.array(rows.features.contiguous().numpy().reshape(-1))
    columns = {
        "id": pa.array(rows.ids, pa.string()),
        "split": pa.array([rows.split] * count, pa.string()),
        "label": pa.array(nulls if rows.labels is None else rows.labels, pa.int64()),
        "class_name": pa.array(nulls if rows.classes is None else rows.classes, pa.string()),
        "features": pa.FixedSizeListArray.from_arrays(flat, dimensions),
    }
    return pa.table(columns)


def _read(path: Path, column: str) -> np.ndarray[Any, Any]:
    """A column of a part, as it was written."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            values = pyarrow.parquet.ParquetFile(path).read(columns=[column])[column]
            if column != "features":
                return np.array(values.to_pylist(), dtype=object)
            flat = values.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            return np.array(flat.reshape(-1, values.type.list_size))  # a copy, which may be written to
        with np.load(path, allow_pickle=False) as file:
            found: np.ndarray[Any, Any] = file[column]
            return found
    # pyarrow's errors are ValueErrors and OSErrors, a missing column is a KeyError
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)[:200]}): run ssl-adapt embed again") from error
