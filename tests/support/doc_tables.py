"""The lists, shards and tables that commands of the docs read."""

from pathlib import Path

from shard_files import write_shards


def write_tables(folder: Path, names: list[str]) -> None:
    """A CSV of `names`, which are SPLIT/CLASS/FILE in the folder images, three shards, and a saved data set."""
    rows = [f"images/{name},{name.split('/')[1]},{name.split('/')[0]}" for name in names]
    (folder / "images.csv").write_text("\n".join(["path,label,split", *rows, ""]))
    write_shards(folder / "shards", {f"00000{number}.tar": 6 for number in range(3)})
    import datasets

    images = {
        "image": [str(folder / "images" / name) for name in names],
        "label": [name.split("/")[1] for name in names],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(images, features=features).save_to_disk(folder / "saved_dataset")
