"""docs/bad_input.md: every row is what the scripts say today, in one sentence and with nothing made."""

import re

import pytest
from bad_inputs import CASES, Case, answer, document, row
from checkout import ROOT

DOCUMENT = (ROOT / "docs" / "bad_input.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_bad_input_gets_the_sentence_of_the_table(case: Case) -> None:
    output, created = answer(case)
    assert output.code == 2, output.err
    assert re.fullmatch(r"(recipe \w+ in \S+: importing torch\n)?", output.out), "nothing that looks like success"
    assert output.err.startswith("error: ")
    assert output.err.endswith("\n")
    assert output.err.count("\n") == 1, output.err
    assert "Traceback" not in output.err
    assert answer(case).sentence.isprintable()
    assert created == set(), "an error comes before anything is made, and no pickle is opened"
    assert row(case) in DOCUMENT.splitlines(keepends=True), "python tests/support/bad_inputs.py > docs/bad_input.md"


def test_the_document_is_what_is_written_now() -> None:
    assert document() == DOCUMENT, "python tests/support/bad_inputs.py > docs/bad_input.md"
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| ") and line != "| input | message |"]
    assert len(rows) == len(CASES) >= 50
    assert len(set(rows)) == len(rows)
    assert all(line.replace(r"\|", "").count("|") == 3 for line in rows), "a cell would end early"
