"""scripts/knn_eval.py and scripts/pretrain.py: a user's error is one sentence on stderr and exit code 2."""

import re
from pathlib import Path

import pytest
from image_folders import write_class_folders, write_images
from script_calls import Output, create_export, create_run, run_script

from ssl_adapt.recipe import load_recipe


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_export(tmp_path_factory.mktemp("models") / "export")


ERRORS = [
    (["k=3"], "model is missing: add model=VALUE (text): a run folder"),
    (["model=resnet20", "fast"], "argument 'fast' has no '=': type key=value"),
    (["model=resnet20", "dta=digits"], "unknown key 'dta'; did you mean 'data'?"),
    (["model=resnet20", "data.name=digits"], "unknown key 'data.name'; did you mean 'data'?"),
    (["model=resnet20", "data.root=x"], "unknown key 'data.root'; did you mean 'root'?"),
    (["model=resnet20", "--k=3"], "unknown key '--k'; did you mean 'k'?"),
    (["model=resnet20", "zzz=3"], "unknown key 'zzz'; --help lists the keys"),
    (["model=resnet20", "k=3", "k=3"], "'k' is given twice: keep one of them"),
    (["model=resnet20", "k=0"], "k: got 0, expected integer >= 1"),
    (["model=resnet20", "k=many"], "k: got 'many', expected integer >= 1"),
    (["model=resnet20", "temperature=nan"], "temperature: got 'nan', expected number > 0"),
    (["model=resnet20", "temperature=inf"], "temperature: got 'inf', expected number > 0"),
    (["model=resnet20", "baselines=yes"], "baselines: got 'yes', expected true or false"),
    (["model=resnet20", "data=cifar"], "data: got 'cifar', expected digits |"),
    (["model=resnet20", "protocol=dion"], "protocol: got 'dion', expected simclr_cifar |"),
    (["model=resnet20", "json=no/such/folder"], "json: got 'no/such/folder', expected path of a file in a folder that"),
    (["model="], "model: got null, expected text"),
    (["model=resnet20"], "resnet20 is no run folder, whose recipe names the images: add data=NAME, one of digits,"),
    (["model=resnet2O", "data=digits"], "unknown model 'resnet2O'; did you mean"),
    (["model=zzz", "data=digits"], "unknown model 'zzz'; timm.list_models() has the names"),
    (["model=my/net", "data=digits"], "there is no folder my/net; a model of the Hugging Face hub is typed hf-hub:my/"),
    (["model=local-dir:net", "data=digits"], "there is no folder net\n"),
    (["model=resnet20.in1k", "data=digits"], "resnet20.in1k cannot be loaded: Invalid pretrained tag (in1k)"),
    (["model=resnet20", "data=digits"], "resnet20 cannot be loaded: timm has no weights for it; type pretrained=false"),
    (["model=EXPORT", "data=digits", "pretrained=false"], "pretrained=false is for names of timm, and EXPORT is none"),
    (["model=EXPORT", "data=digits", "device=abacus"], "device=abacus does not work here (Expected one of cpu,"),
    (["model=EXPORT", "data=digits", "device=meta"], "device=meta does not work here (Cannot copy out of meta tensor"),
    (["model=EXPORT", "data=digits", "k=1298"], "k=1298 is more than the 1297 training images: type k=1297 or less"),
    (["model=EXPORT", "data=digits", "protocol=plain", "temperature=0.1"], "temperature=0.1 has no meaning for a maj"),
    (["model=EXPORT", "data=digits", "protocol=plain", "weighting=exp"], "weighting=exp needs a temperature here: add"),
    (["model=EXPORT", "data=digits", "probes=8"], "probes=8 has no meaning for the exact search: leave it out or add"),
    (["model=EXPORT", "data=digits", "search=ivf"], "search=ivf needs the number of lists to search: add probes=32"),
    (["model=EXPORT", "data=digits", "search=ivf", "probes=0"], "probes: got 0, expected integer >= 1"),
    (["model=EXPORT", "data=folder"], "data=folder needs root=PATH, a folder of images or a tar of one"),
    (["model=EXPORT/config.json", "data=digits"], "EXPORT/config.json is a file: type the folder that holds config"),
]  # fmt: skip


def error_of(output: Output) -> str:
    """The sentence of a user's error, after checking that there is nothing else."""
    assert output.code == 2, output
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1, output.err
    return output.err.removeprefix("error: ")


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_a_wrong_argument_is_one_sentence(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    output = run_script(*(argument.replace("EXPORT", str(export)) for argument in arguments))
    assert error_of(output).startswith(message.replace("EXPORT", str(export)))


def test_the_errors_of_a_folder_that_holds_no_usable_model(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert error_of(run_script("model=empty", "data=digits")).startswith("empty holds neither recipe.yaml,")
    Path("runs/mine").mkdir(parents=True)
    message = "unknown model 'mine'; did you mean runs/mine?"
    assert error_of(run_script("model=mine", "data=digits")).startswith(message)
    Path("broken").mkdir()
    Path("broken/config.json").write_bytes((export / "config.json").read_bytes())
    Path("broken/model.safetensors").write_bytes((export / "model.safetensors").read_bytes()[:999])
    message = "broken cannot be loaded: "
    assert error_of(run_script("model=broken", "data=digits")).startswith(message)


def test_a_run_that_is_not_exported_says_how_it_goes_on(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", None)
    message = error_of(run_script(f"model={run}"))
    assert message.startswith(f"the run in {run} has not been exported yet: ")
    command = re.search(r"ssl-adapt pretrain (.*)\n", message)
    assert command is not None
    recipe = load_recipe(command[1].split())
    assert (recipe.run_dir, recipe.run.resume) == (run, "auto")


def test_images_without_labels_or_without_a_test_split_are_refused(export: Path, tmp_path: Path) -> None:
    def message(root: Path) -> str:
        return error_of(run_script(f"model={export}", "data=folder", f"root={root}", "k=2"))

    write_images(tmp_path / "flat", "a.png", "b.png")
    assert message(tmp_path / "flat").startswith(f"data=folder root={tmp_path / 'flat'} has no labels, and kNN")
    write_images(tmp_path / "classes", "a/0.png", "a/1.png", "b/0.png")
    assert message(tmp_path / "classes").startswith(
        f"data=folder root={tmp_path / 'classes'} has no test images, and kNN needs them"
    )
    write_class_folders(tmp_path / "complete")
    assert run_script(f"model={export}", "data=folder", f"root={tmp_path / 'complete'}", "k=2").code == 0


@pytest.mark.parametrize(("model", "instead"), [("hf-hub:nobody/none", ""), ("resnet18", ", or pretrained=false")])
def test_weights_that_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, instead: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = error_of(run_script(f"model={model}", "data=digits"))
    assert message.startswith(
        f"{model} is not in the cache and cannot be downloaded: connect to the network, or type model=FOLDER{instead}"
    )


def test_pretrain_ends_with_2_after_a_user_s_error() -> None:
    message = error_of(run_script("recipe=debgu", script="pretrain.py"))
    assert message.startswith("unknown recipe 'debgu'; did you mean 'debug'?")
