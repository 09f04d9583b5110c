"""The features of a run on its page: the predictions are the run's own, and what is missing is said."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from image_folders import write_images
from page_runs import ALERT, QUOTED, hostile_run, with_recipe
from short_runs import SUPERVISED, TINY, run

from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.evaluation.progress_bar import show_nothing
from ssl_adapt.page import feature_content, measure_features
from ssl_adapt.page.class_figures import Confusion, class_scores, count_confusions, score_figure, worst_confusions
from ssl_adapt.page.features_section import features_section
from ssl_adapt.page.map_positions import find_positions
from ssl_adapt.page.measure_features import Features, find_neighbours
from ssl_adapt.page.page_section import PageSection
from ssl_adapt.page.views_section import views_section
from ssl_adapt.page.write_page import create_sections, render_page
from ssl_adapt.runs.run_record import read_run

SHORT = ["train.epochs=1", "adapt=null", "data.workers=0"]
FEW = ["data.train_images=320", "data.batch_size=160"]


@pytest.fixture(scope="module")
def ssl_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ssl"
    run(folder, *SHORT, "data.batch_size=640", "knn.k=20", base=TINY)
    return folder


@pytest.fixture(autouse=True)
def _small_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_content, "MAP_IMAGES", 40)


def measure(folder: Path) -> Features:
    return measure_features.measure_features(read_run(folder), show_nothing)


def score(folder: Path, key: str) -> float:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))[key]["result"]


def values_of(section: PageSection, name: str) -> list[dict[str, Any]]:
    """The data of a figure."""
    [spec] = [figure.spec for figure in section.figures if figure.name == name]
    [values] = spec.get("datasets", {"": spec["data"].get("values")}).values()
    return values


def test_the_page_counts_what_the_run_counted(ssl_run: Path) -> None:
    section = features_section(read_run(ssl_run))
    expected = score(ssl_run, "knn_top1")
    scores = values_of(section, "class-scores")
    assert [entry["class"] for entry in sorted(scores, key=lambda entry: entry["class"])] == list("0123456789")
    assert sum(entry["of"] for entry in scores) == 500
    assert sum(entry["right"] for entry in scores) / 500 == pytest.approx(expected, abs=1e-12)
    assert [entry["share"] for entry in scores] == sorted((entry["share"] for entry in scores), reverse=True)
    assert all(entry["low"] < entry["share"] < entry["high"] for entry in scores if 0 < entry["share"] < 1)
    cells = values_of(section, "confusion")
    assert len(cells) == 100
    assert sum(cell["images"] for cell in cells) == 500
    right = {cell["class"]: cell["images"] for cell in cells if cell["class"] == cell["predicted"]}
    assert right == {entry["class"]: entry["right"] for entry in scores}
    assert section.values["lead"].startswith(f"{expected:.2%} of 500 test images are predicted right")
    assert "own score" not in section.values["lead"]
    assert len(values_of(section, "feature-map")) == 40


def test_projections_of_averaged_weights_vote_as_in_the_run(tmp_path: Path) -> None:
    others = ["knn.layer=projection", "knn.weighting=majority", "train.ema_decay=0.9"]
    run(tmp_path / "a", *SHORT, *FEW, "knn.k=20", *others)
    features = measure(tmp_path / "a")
    assert features.is_right is not None
    assert features.is_right.double().mean().item() == score(tmp_path / "a", "knn_top1")
    assert features.rows.shape == (500, 32)
    assert features.how == "kNN on projection features, k 20, majority vote, among 320 training images"


def test_a_classifier_predicts_as_in_the_run(tmp_path: Path) -> None:
    run(tmp_path / "a", "train.epochs=1", *FEW, base=SUPERVISED)
    features = measure(tmp_path / "a")
    assert features.is_right is not None
    assert features.is_right.double().mean().item() == score(tmp_path / "a", "accuracy_top1")
    assert features.rows.shape[1] != 10  # not the logits
    assert features.how == "the network's classifier"


def test_twenty_queries_half_of_them_right_with_their_neighbours(ssl_run: Path) -> None:
    queries = features_section(read_run(ssl_run)).values["queries"]
    assert [query.picture.is_right for query in queries] == [True] * 10 + [False] * 10
    assert all(len(query.neighbours) == 8 for query in queries)
    for query in queries:
        assert bool(query.taken_for) == (query.picture.is_right is False)
        assert query.picture.alt.startswith(f"test image, of class {query.picture.caption}, predicted as ")
        for number, near in enumerate(query.neighbours, start=1):
            same = near.caption == query.picture.caption
            kind = "same class" if same else "another class"
            assert near.is_right == same
            assert near.alt.startswith(f"neighbour {number}, {near.caption}, {kind}, cosine ")
    assert features_section(read_run(ssl_run)).values["queries"] == queries  # always the same


def test_neighbours_are_the_nearest_ones(ssl_run: Path) -> None:
    features = measure(ssl_run)
    chosen = torch.tensor([3, 0])
    found = find_neighbours(features, chosen, 5)
    cosines = features.rows[chosen].double() @ features.bank_rows.double().T
    assert torch.allclose(found.cosines.double(), cosines.topk(5).values, atol=1e-5)
    assert torch.allclose(cosines.gather(1, found.classes), found.cosines.double(), atol=1e-5)


def test_a_large_set_is_a_sample_and_says_so(ssl_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_features, "MOST_BANK", 300)
    monkeypatch.setattr(measure_features, "MOST_QUERIES", 100)
    section = features_section(read_run(ssl_run))
    assert (
        section.values["sample"] == "A sample: 100 of 500 images and 300 of 1,297 training images for their neighbours."
    )
    assert f"The run's own score is {score(ssl_run, 'knn_top1'):.2%}." in section.values["lead"]


def test_images_without_labels_have_a_map_and_neighbours(ssl_run: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", *(f"{number}.png" for number in range(12)))
    folder = with_recipe(
        ssl_run, tmp_path / "a", "data.name=folder", f"data.root={tmp_path / 'images'}", "data.batch_size=4"
    )
    section = features_section(read_run(folder))
    assert section.values["missing"] == ["The images have no labels: nothing is predicted, and the map has one colour."]
    assert [figure.name for figure in section.figures] == ["feature-map"]
    assert {entry["file"] for entry in values_of(section, "feature-map")} == {f"{number}.png" for number in range(12)}
    queries = section.values["queries"]
    assert len(queries) == 12
    for query in queries:
        assert query.picture.is_right is None
        own = query.picture.alt.rpartition(", ")[2]
        assert own not in {near.alt.rpartition(", ")[2] for near in query.neighbours}
        assert len(query.neighbours) == 8
    assert "✓" not in render_page("a", [section])


def test_labels_without_test_images(ssl_run: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", *(f"{name}/{number}.png" for name in "ab" for number in range(6)))
    folder = with_recipe(
        ssl_run, tmp_path / "a", "data.name=folder", f"data.root={tmp_path / 'images'}", "data.batch_size=4"
    )
    section = features_section(read_run(folder))
    assert section.values["missing"] == [
        "There are no test images: nothing is predicted, and the training images are shown."
    ]
    assert {entry["class"] for entry in values_of(section, "feature-map")} == {"a", "b"}


def test_what_is_gone_is_one_sentence_and_the_other_sections_come(ssl_run: Path, tmp_path: Path) -> None:
    folder = with_recipe(ssl_run, tmp_path / "a", "data.name=folder", f"data.root={tmp_path / 'gone'}", "knn.k=3")
    sections = {section.name: section for section in create_sections(read_run(folder))}
    for name in ("features", "views"):
        problem = sections[name].values["problem"]
        assert problem.startswith("Not shown: ")
        assert str(tmp_path / "gone") in problem
        assert problem.endswith(f"type: ssl-adapt report run={folder}")
        assert str(tmp_path / "gone") in render_page("a", list(sections.values()))
    shutil.rmtree(folder / "export")
    assert "has not been exported yet" in features_section(read_run(folder)).values["problem"]
    assert sections["views"].values["chains"][0][1]  # how they are drawn is known all the same


class Elements(HTMLParser):
    """The elements of a page by name, and all of its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.values: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.values += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.values.append(data.strip())


def test_hostile_names_are_text(ssl_run: Path, tmp_path: Path) -> None:
    names, folder = hostile_run(ssl_run, tmp_path)
    run_record = read_run(folder)
    sections = [features_section(run_record), views_section(run_record)]
    assert [section.values["problem"] for section in sections] == ["", ""]
    page = render_page(QUOTED, sections)
    found = Elements(page)
    assert found.names.count("script") == 4  # charts, configuration, Vega, the page's own
    assert "b" not in found.names
    assert ALERT not in page
    assert any(value.endswith(ALERT) for value in found.values)  # a caption, as text
    assert any(value.endswith(f"{QUOTED}.png") for value in found.values)  # a title
    points = values_of(sections[0], "feature-map")
    assert {point["class"] for point in points} == {ALERT, QUOTED}
    assert {point["file"] for point in points} == set(names[8:])


def test_collapsed_or_few_features_have_no_map() -> None:
    same = torch.nn.functional.normalize(torch.ones(30, 4), dim=1)
    assert find_positions(same) is None
    assert find_positions(torch.eye(4)) is None
    positions = find_positions(torch.eye(5))
    assert positions is not None
    assert positions.tsne.shape == positions.pca.shape == (5, 2)


def test_many_classes_are_pairs_and_the_best_and_worst_scores() -> None:
    classes = [f"class {number}" for number in range(60)]
    labels = torch.arange(60).repeat_interleave(4)
    predicted = labels.clone()
    predicted[:3] = 7
    predicted[8:10] = 1
    counts = count_confusions(labels, predicted, 60)
    assert counts.sum() == 240
    assert worst_confusions(counts, classes) == [
        Confusion("class 0", "class 7", 3, 0.75), Confusion("class 2", "class 1", 2, 0.5)
    ]  # fmt: skip
    scores = class_scores(counts, classes)
    assert (scores[-1].name, scores[-1].share) == ("class 0", 0.25)
    assert (scores[-1].low, scores[-1].high) == wilson_interval(0.25, 4)
    figure = score_figure(scores)
    assert figure.note.startswith("The best and the worst 12 of 60 classes.")
    assert len(values_of(PageSection("a", "a", {}, [figure]), figure.name)) == 24
