"""Writes a Vega-Lite chart into a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair
import vl_convert

VEGA_LITE = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])  # the version that Altair writes for
Chart = Any  # of Altair, whose methods promise several classes
PNG_SCALE = 2  # pixels of the file for one of the chart
FONT = "Arial, Helvetica, sans-serif"
FILE_CONFIG = {
    "background": "white",
    "font": FONT,
    "view": {"stroke": "transparent"},
    "axis": {"gridOpacity": 0.3, "titleFontWeight": "normal", "titleFontSize": 12, "labelFontSize": 11},
    "legend": {"orient": "bottom", "labelFontSize": 11, "labelLimit": 400},
    "title": {"fontSize": 14, "fontWeight": "normal"},
}


def write_chart(spec: Mapping[str, Any], path: Path, config: Mapping[str, Any] = FILE_CONFIG) -> None:
    """Draw a chart into a .svg, .png or .pdf file, on white; what the page's colour is on a page is black there."""
    whole = {**spec, "config": {**config, "background": "white"}}
    if path.suffix == ".svg":
        path.write_text(vl_convert.vegalite_to_svg(whole, VEGA_LITE), encoding="utf-8")
    elif path.suffix == ".png":
        path.write_bytes(vl_convert.vegalite_to_png(whole, VEGA_LITE, scale=PNG_SCALE))
    else:
        assert path.suffix == ".pdf"
        path.write_bytes(vl_convert.vegalite_to_pdf(whole, VEGA_LITE))
