"""Weights out of untrusted files: safetensors, and torch state dicts, which are read as tensors alone."""

import os
import warnings
import zipfile
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor

from ssl_adapt.errors import UserError
from ssl_adapt.export.check import read_header
from ssl_adapt.json_text import one_line, shown

SUFFIXES = (".safetensors", ".pth", ".pt")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU.

    Of a checkpoint they are those under `state_dict_ema`, `model_ema`, `state_dict` or `model`, as timm looks for
    them, without the names that wrappers put before theirs. No code in the file is executed.

    Args:
        path: a file that ends in .safetensors, or in .pth or .pt, as `torch.save(model.state_dict(), path)` writes it.

    Raises:
        ValueError: if it is another kind of file, damaged, or holds anything but tensors; the message names the file.
    """
    try:
        return _read(path)
    except Exception as error:  # torch, timm and safetensors have no common class of errors
        reason = one_line(error)[:200] if isinstance(error, UserError) else f"it is damaged ({one_line(error)[:150]})"
        raise UserError(f"{path} cannot be loaded: {reason}") from error


def _read(path: Path) -> dict[str, Tensor]:
    if not os.path.isfile(path):
        raise UserError("there is no such file")
    if path.suffix not in SUFFIXES:
        raise UserError(f"weights are files that end in {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors":
        read_header(path)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                raise UserError("it is compressed, as torch.save does not write it")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, of pickles that it then refuses
            state = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # of which class it is depends on timm's release
        if "weights_only" not in str(error).replace(" ", "_").lower():
            raise
        raise UserError(
            "it holds something else than tensors, which is not read, as code in it could run: "
            "save model.state_dict() alone"
        ) from error
    wrong = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong or not state:
        raise UserError(f"{shown(wrong[0])} is no tensor: save model.state_dict() alone" if wrong else "it is empty")
    for name, tensor in state.items():  # a view that repeats few numbers could claim any amount of memory
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{shown(name)} claims more numbers than there are")
    return state
