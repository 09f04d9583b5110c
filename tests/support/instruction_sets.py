"""Forward and backward passes of layers, networks and recipes on an instruction set, with malloc's checks on.

`run_cases` starts this file in a process that has the instruction set; that runs the cases in forks of its own, as a
corrupt heap may end one. Each gradient is compared with that of float64, computed without oneDNN.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path

import timm
import torch
from image_folders import write_images
from registered_networks import NETWORKS, create
from timm.layers import DropPath
from torch import Tensor, nn

from benchmarks.family_comparison import FAMILIES
from ssl_adapt import Adaptation, adaptable, load_recipe, pretrain
from ssl_adapt.backbones.memory_format import choose_memory_format, is_broken_channels_last
from ssl_adapt.recipe import available_recipes

INSTRUCTION_SETS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    "own": {"ONEDNN_MAX_CPU_ISA": "DEFAULT"},
}
CHECKS = {
    "MALLOC_CHECK_": "3",
    "LD_PRELOAD": "libc_malloc_debug.so.0",  # where glibc 2.34 and later have that check
    "MALLOC_PERTURB_": "165",  # memory that nobody wrote to is no zero by chance
    "OMP_NUM_THREADS": "1",
}
ALLOWED = {torch.float32: 1e-3, torch.bfloat16: 3e-2}  # relative error of a gradient; that of a bug is about 1
ALLOWED_OF_NETWORK = 1e-2
SECONDS = 200  # for one fork, as a corrupt heap can also hang
MARK = "outcome "  # before each line that is one; recipes print others
GROUP = 256  # layers in one fork, as long as none of them is wrong

Case = Callable[[], tuple[float, float]]  # the relative error of its worst gradient, and what is allowed
Cases = Iterator[tuple[str, Case]]
Outcomes = dict[str, str]  # what a case is called -> "right, ...", or what is wrong


def run_cases(kind: str, instruction_set: str) -> Outcomes:
    """The outcome of every case of a kind on an instruction set."""
    environment = {**os.environ, **INSTRUCTION_SETS[instruction_set], **CHECKS}
    process = subprocess.run([sys.executable, __file__, kind], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return dict(json.loads(line.removeprefix(MARK)) for line in process.stdout.splitlines() if line.startswith(MARK))


def wrong(outcomes: Outcomes) -> Outcomes:
    return {name: outcome for name, outcome in outcomes.items() if not outcome.startswith("right")}


def main(kind: str) -> None:
    """Print a line for each of a kind's cases: what it is called, and its outcome."""
    cases = dict(KINDS[kind]())
    size = GROUP if kind == "layers" else 1
    for start in range(0, len(cases), size):
        group = dict(list(cases.items())[start : start + size])
        found = run_in_fork(group)
        if size > 1 and (len(found) < len(group) or wrong(found)):  # in a fork of its own each shows its own fault
            found = Outcomes()
            for name, case in group.items():
                found |= run_in_fork({name: case})
        for name in group:
            print(MARK + json.dumps([name, found.get(name, "died")]), flush=True)


def run_in_fork(cases: dict[str, Case]) -> Outcomes:
    """The outcomes of the cases, up to the one in which the process died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        with os.fdopen(writer, "w") as answers:
            for name, case in cases.items():
                answers.write(json.dumps([name, judge(case)]) + "\n")
                answers.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        found: Outcomes = dict(json.loads(line) for line in answers if line.endswith("\n"))
    _, status = os.waitpid(child, 0)
    if status != 0 and len(found) == len(cases):  # it died when the memory of the last case was given back
        found.popitem()
    return found


def judge(case: Case) -> str:
    torch.manual_seed(0)
    try:
        error, allowed = case()
    except Exception as failure:  # a corrupt heap can end in any
        return f"failed: {type(failure).__name__}: {failure}"
    return f"{'right' if error < allowed else 'wrong'}, error {error:.0e}"


def gradient_error(module: nn.Module, images: Tensor, memory_format: torch.memory_format) -> float:
    """The largest relative error of a gradient, of weights and images, against float64 without oneDNN."""
    exact, exact_images = deepcopy(module).double(), images.double().requires_grad_()
    module.to(memory_format=memory_format)
    images = images.to(memory_format=memory_format).requires_grad_()  # contiguous() leaves a single channel as it is
    outputs = as_tuple(module(images))
    above = [torch.randn_like(output) for output in outputs]
    torch.autograd.backward(outputs, above)
    with torch.backends.mkldnn.flags(enabled=False):
        torch.autograd.backward(as_tuple(exact(exact_images)), [gradient.double() for gradient in above])
    pairs = zip((images, *module.parameters()), (exact_images, *exact.parameters()), strict=True)
    found = [(a.grad.double() - b.grad, b.grad) for a, b in pairs if b.grad is not None]
    largest = max(float(gradient.norm()) for _, gradient in found)
    errors = [float(error.norm() / (gradient.norm() + 1e-3 * largest)) for error, gradient in found]
    return max(errors) if all(error == error for error in errors) else float("nan")


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


# --- layers ------------------------------------------------------------------------------------------------------

FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
SIZES = ((4, 8, 8), (16, 7, 4), (5, 16, 3), (32, 8, 16), (8, 13, 2), (12, 64, 2))  # output channels, pixels, batch
OTHER_LAYERS = {
    "batch norm": nn.BatchNorm2d,
    "max pool": lambda _: nn.MaxPool2d(3, 2, 1),
    "average pool": lambda _: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "adaptive pool to 2": lambda _: nn.AdaptiveAvgPool2d(2),
    "adaptive pool to 1": lambda _: nn.AdaptiveAvgPool2d(1),
}


def layers() -> Cases:
    """Convolutions on a grid, in both memory formats where the rule lets them, BatchNorm and pooling."""
    in_channels = (*range(1, 21), 24, 31, 32, 36, 64)
    shapes = product((1, 3, 5, 7), (1, 2), (1, 2), (1, 2, 0), in_channels, FORMATS)  # 0 groups: depthwise
    for number, (kernel, stride, dilation, groups, channels, layout) in enumerate(shapes):
        groups = groups or channels
        if channels % groups or (dilation > 1 and kernel not in (3, 5)):
            continue
        is_special = (kernel, stride) == (1, 2)  # some of these go wrong
        sizes = SIZES if is_special else SIZES[number // 2 % 6 :][:1]
        for out, px, batch in sizes:
            conv = partial(create_conv, channels, groups * max(1, out // groups), kernel, stride, dilation, groups)
            yield from layer_cases(f"{conv()}", conv, (batch, channels, px, px), layout)
    for layer, channels, px, layout in product(OTHER_LAYERS, (1, 3, 4, 8, 13, 16, 40), (7, 8), FORMATS):
        yield from layer_cases(layer, partial(OTHER_LAYERS[layer], channels), (4, channels, px, px), layout)


def named_convolutions() -> Cases:
    """Some that `choose_memory_format` keeps away from channels-last, in channels-last."""
    for channels, px in product((1, 2, 4, 7, 8, 15), (32, 64)):
        yield from layer_cases(
            "", partial(create_conv, channels, 16, 1, 2, 1, 1), (16, channels, px, px), "channels-last", has_rule=False
        )


def layer_cases(
    name: str, create_layer: Callable[[], nn.Module], shape: tuple[int, ...], layout: str, *, has_rule: bool = True
) -> Cases:
    """The layer in each precision; what the rule keeps away from channels-last is left out there."""
    is_own = os.environ["ONEDNN_MAX_CPU_ISA"] == "DEFAULT"
    has_bfloat16 = is_own and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    layer = create_layer()
    for precision in ("float32", "bfloat16") if has_bfloat16 else ("float32",):
        is_named = isinstance(layer, nn.Conv2d) and is_broken_channels_last(layer, bfloat16=precision == "bfloat16")
        if has_rule and is_named and layout == "channels-last":
            continue
        full_name = ", ".join([*([name] if name else []), str(tuple(shape)), layout, precision])
        yield full_name, partial(layer_error, create_layer, shape, FORMATS[layout], getattr(torch, precision))


def create_conv(in_channels: int, out_channels: int, kernel: int, stride: int, dilation: int, groups: int) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=in_channels % 2 == 0)


def layer_error(
    create_layer: Callable[[], nn.Module], shape: tuple[int, ...], layout: torch.memory_format, precision: torch.dtype
) -> tuple[float, float]:
    error = gradient_error(create_layer().to(precision), torch.randn(shape).to(precision), layout)
    return error, ALLOWED[precision]


# --- networks and recipes ----------------------------------------------------------------------------------------


def networks() -> Cases:
    """Every network of ours: tiny, tiny while it adapts with learnt identities, and in full."""
    for key in NETWORKS:
        yield f"{key}, tiny", partial(network_error, partial(create, key))
        yield f"{key}, tiny, mixed", partial(network_error, partial(create, key), adapts=True)
    for name in dict.fromkeys(key.partition(",")[0] for key in NETWORKS):
        yield f"{name}, full", partial(network_error, partial(timm.create_model, name, num_classes=10))


def families() -> Cases:
    """A small member of ten families of timm, made adaptable, and two that have the named convolutions."""
    for name in (*FAMILIES, "repvgg_a0", "gernet_s"):
        yield name, partial(network_error, partial(timm.create_model, name, num_classes=10))


def network_error(create_network: Callable[[], nn.Module], adapts: bool = False) -> tuple[float, float]:
    """As `gradient_error`, in the memory format that our loop gives the network, with GELU in the place of ReLU.

    Where a ReLU is near zero, rounding turns it, and the gradients of a deep network in float32 are far from float64.
    What is still far may be 10 times as far as float32 without oneDNN.
    """
    network = create_network()
    is_ours = hasattr(network, "edge_specs")
    image_px = 4 * network.feature_info[-1]["reduction"] if is_ours else network.pretrained_cfg["input_size"][-1]
    memory_format = choose_memory_format(network, torch.device("cpu"))
    if adapts:
        Adaptation(network, shape_change="project")
    elif not is_ours:
        adaptable(network)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.abs().max() < 1e-2:  # a scale or a classifier that starts at next to nothing hides the rest
                parameter.normal_(std=0.1)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, DropPath):  # float32 and float64 would drop other ones
                child.drop_prob = 0.0
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(module, name, nn.GELU())
    images = torch.randn(4 if is_ours else 2, 3, image_px, image_px)
    error = gradient_error(deepcopy(network.train()), images, memory_format)
    if error < ALLOWED_OF_NETWORK:
        return error, ALLOWED_OF_NETWORK
    with torch.backends.mkldnn.flags(enabled=False):
        return error, 10 * gradient_error(network, images, memory_format)


def recipes() -> Cases:
    """The first steps of every recipe, both stages and the export, on a few random images."""
    for name in available_recipes():
        yield name, partial(run_recipe, name)


def run_recipe(name: str) -> tuple[float, float]:
    is_supervised = load_recipe([f"recipe={name}"]).objective.name == "supervised"
    more = ["views.pad_px=1"] if is_supervised else ["knn.every_epochs=0", "knn.k=5"]
    if name == "shrink_vit":
        more.append("model.args={img_size: 8, patch_size: 4}")
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(16)]
        write_images(Path(folder) / "images", *names)
        small = ["data.image_px=8", "data.batch_size=8", "data.workers=0", "train.max_steps=4"]
        places = ["data.name=folder", f"data.root={folder}/images", f"run.dir={folder}/run"]
        pretrain(load_recipe([f"recipe={name}", *places, *small, *more]))
    return 0.0, 1.0  # a loss or a gradient that is not finite has stopped the run


def controls() -> Cases:
    """What the checks must see, and what they must not."""
    yield "one byte too many", partial(write_past_a_tensor, 1)
    yield "no byte too many", partial(write_past_a_tensor, 0)


def write_past_a_tensor(count: int) -> tuple[float, float]:
    tensor = torch.empty(1000)
    ctypes.memset(tensor.data_ptr(), 0, 4 * len(tensor) + count)
    return float(tensor.sum()), 1.0


KINDS = {
    "layers": layers,
    "named convolutions": named_convolutions,
    "networks": networks,
    "families": families,
    "recipes": recipes,
    "controls": controls,
}

if __name__ == "__main__":
    main(sys.argv[1])
