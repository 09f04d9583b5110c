"""Without matplotlib, an extra: drawings are refused in a sentence before any work, and the rest works."""

import json
import subprocess
import sys
from pathlib import Path

CALLS = """
import json, sys
sys.modules["matplotlib"] = None  # as where it is not installed
from ssl_adapt.commands import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ssl-adapt", *arguments]
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code, file=sys.stderr)
"""
REFUSED = "drawings need matplotlib, which is not installed: pip install 'ssl-adapt[report]'"


def test_a_drawing_is_refused_at_once_and_a_table_is_not(tmp_path: Path) -> None:
    calls = [
        ["inspect", "model=resnet20", "drawing=cells.svg", "json=refused.json"],
        ["report", "before=resnet20_nat", "after=resnet20_nat", "drawing=cells.svg"],
        ["inspect", "model=resnet20", "json=edges.json"],
    ]
    command = [sys.executable, "-c", CALLS, json.dumps(calls)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    lines = done.stderr.splitlines()
    assert sum(REFUSED in line for line in lines) == 2, done.stderr
    assert [line for line in lines if line.startswith("exit code")] == ["exit code 2", "exit code 2"]
    assert [path.name for path in tmp_path.iterdir()] == ["edges.json"]
    assert json.loads((tmp_path / "edges.json").read_text())["model"] == "resnet20"
    assert "layer1.0" in done.stdout
