"""ONNX files: written by torch's exporter, loaded by onnxruntime."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_adapt.errors import UserError


def check_installed() -> None:
    """Raise an error where the packages of the extra `onnx` are not installed.

    Raises:
        ValueError: the message says what to type.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}, not installed here: pip install 'ssl-adapt[onnx]'")


def save(
    program: torch.export.ExportedProgram, path: Path, outputs: Sequence[str], metadata: Mapping[str, Any]
) -> None:
    """Write the traced network; the metadata are JSON values in `metadata_props`."""
    with warnings.catch_warnings(action="ignore"):  # of the exporter's own code
        onnx: Any = torch.onnx.export(
            program, input_names=["images"], output_names=list(outputs), dynamic_shapes=({0: "batch"},), dynamo=True,
            verbose=False,
        )  # fmt: skip
    onnx.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    onnx.save(path)


def load(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """The file as a function of images, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]
