"""The page of a run, written by the command that ran it once the run itself is safe."""

import os
import shlex
from pathlib import Path

from ssl_adapt.json_text import one_line


def write_page_after(run_dir: Path) -> None:
    """Write `report.html` into the folder of a run, in the main process, and say where it is.

    Whatever may be wrong with the page, the run is not: then a line says why there is none, and what to type.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        from ssl_adapt.page.write_page import write_report

        for line in write_report(str(run_dir)):
            print(line, flush=True)
    except Exception as error:
        reason = one_line(error)[:300]
        print(
            f"no page of the run: {reason}; to try again: ssl-adapt report run={shlex.quote(str(run_dir))}", flush=True
        )
