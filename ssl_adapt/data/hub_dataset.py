"""Data sets of Hugging Face's library datasets, from the hub or from the disk: rows decoded one by one."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_adapt.data.columns import Columns
from ssl_adapt.data.layout import Classes, Layout, listed_layout
from ssl_adapt.errors import UserError

_HELD_OUT = ("test", "validation", "val", "valid", "dev")


@dataclass(frozen=True)
class RowFiles:
    """The images of a data set, by names such as `train[31415]`, in the order of its rows.

    `tables` has the column of images of each split, not decoded: memory-mapped files that all processes share.
    """

    root: Path
    names: tuple[str, ...]
    left_out: dict[str, str]
    tables: dict[str, Any] = field(repr=False)

    def read(self, name: str, *, max_bytes: int) -> bytes | None:
        split, _, row = name.removesuffix("]").rpartition("[")
        (image,) = self.tables[split][int(row)].values()
        if image is None:
            return b""
        if image["bytes"] is not None:
            return bytes(image["bytes"][: max_bytes + 1])
        path = Path(image["path"] or "")
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(min(path.stat().st_size, max_bytes + 1))

    def all_names(self) -> list[str]:
        return list(self.names)


def open_hub_dataset(root: Path, columns: Columns) -> tuple[RowFiles, Layout]:
    """The images of a data set on the hub, or of a folder that `save_to_disk` made or that holds Parquet files.

    The column of images is the one of type Image, and that of labels the one of type ClassLabel, or else named label;
    `columns` names others. The split `train`, or the only one, is for training; `test` or `validation` is held out,
    unless its labels are hidden (-1).

    Raises:
        ValueError: datasets is not installed; the data set can't be loaded or has no split or column that fits.
    """
    splits = _load(root)
    train = "train" if "train" in splits else next(iter(splits))
    if train != "train" and len(splits) > 1:
        raise UserError(f"data.root={root} has the splits {', '.join(splits)} and none named train")
    image = _image_column(root, splits[train].features, columns.image)
    label = _label_column(root, splits[train].features, columns.label)
    held_out = next((name for name in _HELD_OUT if name in splits and _has_labels(splits[name], label)), None)
    tables: dict[str, Any] = {}
    classes: dict[str, Classes] = {}
    left_out: dict[str, str] = {}
    order: tuple[str, ...] = ()
    for split in filter(None, (train, held_out)):
        labels, order = _labels(root, splits[split], label)
        tables[split] = _undecoded(root, splits[split], image)
        names = [f"{split}[{row}]" for row in range(len(splits[split]))]
        found: Classes = dict(zip(names, labels, strict=True))
        if any(one is not None for one in labels):
            left_out |= {name: "it has no label, and others have" for name, one in found.items() if one is None}
        classes[split] = {name: one for name, one in found.items() if name not in left_out}
    files = RowFiles(root, tuple(name for split in classes.values() for name in split), left_out, tables)
    return files, listed_layout(root, classes[train], classes[held_out] if held_out else None, order)


def _load(root: Path) -> dict[str, Any]:
    if importlib.util.find_spec("datasets") is None:
        raise UserError("data.name=hf needs the package datasets: pip install datasets")
    import datasets

    datasets.disable_progress_bars()  # those of downloads are the hub's, and stay
    try:
        is_saved = any((root / name).exists() for name in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(str(root)) if is_saved else datasets.load_dataset(str(root))
    # It raises errors of its own, of Arrow, of the hub and of the network.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"data.root={root} cannot be loaded by the package datasets ({reason}): type the name of a data set on "
            "the hub, or a folder that save_to_disk made or that holds Parquet files"
        ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def _image_column(root: Path, features: dict[str, Any], wanted: str | None) -> str:
    from datasets import Image

    found = [name for name, feature in features.items() if isinstance(feature, Image)]
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted is not None and wanted in features:
        return wanted
    raise UserError(
        f"data.root={root} has {len(found) or 'no'} columns of images{_listed(found)} among {', '.join(features)}: "
        f"name one by data.image_column={(found or list(features))[0]}"
        if wanted is None
        else f"data.image_column={wanted}: data.root={root} has the columns {', '.join(features)}"
    )


def _label_column(root: Path, features: dict[str, Any], wanted: str | None) -> str | None:
    from datasets import ClassLabel

    if wanted is not None:
        if wanted not in features:
            raise UserError(f"data.label_column={wanted}: data.root={root} has the columns {', '.join(features)}")
        return wanted
    found = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    if len(found) > 1:
        raise UserError(
            f"data.root={root} has {len(found)} columns of labels{_listed(found)}: "
            f"name one by data.label_column={found[0]}"
        )
    return found[0] if found else "label" if "label" in features else None


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _has_labels(table: Any, label: str | None) -> bool:
    return label is None or any(value not in (-1, None) for value in _values(table, label))


def _values(table: Any, column: str) -> list[Any]:
    values: list[Any] = table.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    return values


def _labels(root: Path, table: Any, column: str | None) -> tuple[list[str | None], tuple[str, ...]]:
    """The class of each row, and the classes in the order of their numbers where the type has one."""
    from datasets import ClassLabel

    if column is None:
        return [None] * len(table), ()
    values, feature = _values(table, column), table.features[column]
    if isinstance(feature, ClassLabel):
        names = tuple(feature.names)
        return [None if value in (-1, None) else names[value] for value in values], names
    wrong = next(
        (value for value in values if isinstance(value, bool) or not isinstance(value, int | str | None)), None
    )
    if wrong is not None:
        raise UserError(
            f"the column {column!r} of data.root={root} holds {wrong!r}, and labels are whole numbers or text: "
            "name another by data.label_column"
        )
    return [None if value in (-1, None, "") else str(value) for value in values], ()


def _undecoded(root: Path, table: Any, column: str) -> Any:
    from datasets import Image

    try:
        return table.select_columns([column]).cast_column(column, Image(decode=False))
    except Exception as error:
        raise UserError(
            f"the column {column!r} of data.root={root} holds {table.features[column]}, which are no images: "
            "name another by data.image_column"
        ) from error
