"""Files of weights, trusted or not: what is read, and what is refused without anything in it being run."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from ssl_adapt.errors import UserError
from ssl_adapt.export.read_weights import read_weights

STATE = {"stem.weight": torch.arange(6.0).reshape(2, 3), "stem.bias": torch.ones(2)}


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (Path("SPRUNG"),)


def compressed(path: Path) -> None:
    torch.save(STATE, path.with_suffix(".plain"))
    with zipfile.ZipFile(path.with_suffix(".plain")) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.safetensors", lambda path: save_file(STATE, path)),
        ("a.pth", lambda path: torch.save(STATE, path)),
        ("old.pt", lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False)),
        ("ema.pth", lambda path: torch.save({"state_dict": {"x": 0}, "state_dict_ema": STATE, "epoch": 3}, path)),
        ("ddp.pt", lambda path: torch.save({"model": {f"module.{name}": v for name, v in STATE.items()}}, path)),
    ],
)
def test_the_tensors_of_a_file(name: str, write: Callable[[Path], object], tmp_path: Path) -> None:
    write(tmp_path / name)
    found = read_weights(tmp_path / name)
    assert set(found) == set(STATE)
    assert all(torch.equal(found[key], value) for key, value in STATE.items())


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("none.pth", lambda path: None, "there is no such file"),
        ("pipe.pth", Path.mkdir, "there is no such file"),
        ("a.bin", Path.touch, "weights are files that end in .safetensors, .pth, .pt"),
        ("empty.pth", Path.touch, "it is damaged"),
        ("text.pth", lambda path: path.write_text("no weights\n" * 9), "which is not read, as code in it could run"),
        ("text.safetensors", lambda path: path.write_text("no weights\n" * 9), "is damaged"),
        ("code.pth", lambda path: path.write_bytes(pickle.dumps(Trap())), "which is not read, as code in it could run"),
        ("trap.pt", lambda path: torch.save({"a": torch.ones(1), "b": Trap()}, path), "as code in it could run"),
        ("object.pt", lambda path: torch.save(SimpleNamespace(a=1), path), "as code in it could run"),
        ("words.pt", lambda path: torch.save({"a": torch.ones(1), "b": "x"}, path), "'b' is no tensor"),
        ("nothing.pt", lambda path: torch.save({}, path), "it is empty"),
        ("view.pt", lambda path: torch.save({"a": torch.ones(1).expand(2**40)}, path), "'a' claims more numbers than"),
        ("zip.pt", compressed, "it is compressed"),
    ],
)
def test_other_files_are_refused(
    name: str, write: Callable[[Path], object], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / name)
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path / name} cannot be loaded: ")
    assert reason in sentence
    assert sentence.isprintable()
    assert not Path("SPRUNG").exists()
