"""The types of values in a recipe, each with its range and its description for help and errors."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ssl_adapt.errors import UserError


@dataclass(frozen=True)
class Expected:
    """What a value must be, in the words of the help and of the error messages."""

    text: str


def _list_to_tuple(value: object) -> object:
    """The value, as a tuple where YAML gave a list: a frozen recipe holds no list."""
    return tuple(value) if isinstance(value, list) else value


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise UserError("not ascending")
    return pair


def _is_plain(value: object) -> bool:
    """True for what JSON can hold, since the arguments of a model also go into the exported config.json."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, bool | int | None) or (isinstance(value, float) and isfinite(value))


def _plain_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    if not _is_plain(arguments):
        raise UserError("not plain")
    return arguments


def _new_file(value: object) -> Path:
    """The path of a file that may be written."""
    if not (isinstance(value, str) and value and Path(value).parent.is_dir() and not Path(value).is_dir()):
        raise UserError("not a new file")
    return Path(value)


Count = Annotated[int, Field(ge=1), Expected("integer >= 1")]
CountOrZero = Annotated[int, Field(ge=0), Expected("integer >= 0")]
EvenOrZero = Annotated[int, Field(ge=0, multiple_of=2), Expected("even integer >= 0")]
Positive = Annotated[float, Field(gt=0), Expected("number > 0")]
PositiveOrZero = Annotated[float, Field(ge=0), Expected("number >= 0")]
Length = Annotated[int | float, Field(gt=0), Expected("number > 0")]
LengthOrZero = Annotated[int | float, Field(ge=0), Expected("number >= 0")]
EdgeChoices = Annotated[
    dict[str, Literal["original", "identity", "none"]],
    Expected("mapping from names of edges to original, identity or none"),
]
Part = Annotated[float, Field(gt=0, lt=1), Expected("number above 0 and below 1")]
Share = Annotated[float, Field(gt=0, le=1), Expected("number above 0, at most 1")]
Fraction = Annotated[float, Field(ge=0, lt=1), Expected("number from 0 to below 1")]
Probability = Annotated[float, Field(ge=0, le=1), Expected("number from 0 to 1")]
Number = Annotated[float, Expected("number")]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$"), Expected("text")]
Tuple = BeforeValidator(_list_to_tuple)
NewFile = Annotated[Path, BeforeValidator(_new_file), Expected("path of a file in a folder that exists")]

Seed = Annotated[int, Field(ge=0, lt=2**32), Expected("integer from 0 to 2**32 - 1")]
FolderName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"),
    Expected("text of letters, digits, '_', '-' and '.'"),
]
BatchSize = Annotated[int, Field(ge=2), Expected("integer >= 2")]
CropScale = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
    Tuple,
    AfterValidator(_ascending),
    Expected("two ascending numbers above 0, at most 1"),
]
CropRatio = Annotated[
    tuple[Positive, Positive], Tuple, AfterValidator(_ascending), Expected("two ascending numbers > 0")
]
BlurSigma = Annotated[
    tuple[Positive, Positive], Tuple, AfterValidator(_ascending), Expected("two ascending numbers > 0")
]
Jitter = Annotated[
    tuple[PositiveOrZero, PositiveOrZero, PositiveOrZero, Annotated[float, Field(ge=0, le=0.5)]],
    Tuple,
    Expected("four numbers >= 0, the last at most 0.5"),
]
ChannelMean = Annotated[tuple[Probability, Probability, Probability], Tuple, Expected("three numbers from 0 to 1")]
ChannelStd = Annotated[tuple[Positive, Positive, Positive], Tuple, Expected("three numbers > 0")]
Betas = Annotated[tuple[Fraction, Fraction], Tuple, Expected("two numbers from 0 to below 1")]
Trackers = Annotated[
    tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...],
    Tuple,
    Expected("list of tensorboard, wandb, mlflow, trackio; may be empty"),
]
ModelArguments = Annotated[
    dict[str, Any],
    AfterValidator(_plain_arguments),
    Expected("mapping of names to plain values; may be empty"),
]
