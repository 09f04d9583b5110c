"""The look that all charts share, on light and dark pages alike."""

from typing import Any

TEXT = "currentColor"  # of the page, so that a change of its theme needs no new drawing
FONT = "system-ui, sans-serif"
CLASSES = (  # readable on white and on black; neighbours differ in lightness too
    "#3b82c4", "#e0812b", "#3fa34d", "#d1495b", "#8d6cc0", "#a0745a", "#d670ad", "#808890", "#a8a02c", "#2fa8b5",
)  # fmt: skip
CHANGED = "#d62839"
ACCENT = CLASSES[0]
STAGE_SHADES = {"architecture": ("#e0812b", 0.14), "anneal": ("#a8a02c", 0.16), "network": ("#808890", 0.05)}


def chart_config() -> dict[str, Any]:
    """The configuration of Vega-Lite: transparent, the page's own colour and font."""
    quiet = {"gridOpacity": 0.15, "gridColor": TEXT, "domainColor": TEXT, "tickColor": TEXT, "domainOpacity": 0.5}
    words = {
        "labelColor": TEXT,
        "titleColor": TEXT,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": "transparent"},
        "axis": {**quiet, **words},
        "legend": {**words, "orient": "top", "symbolStrokeWidth": 2},
        "header": {"labelColor": TEXT, "titleColor": TEXT},
        "title": {"color": TEXT, "fontSize": 13, "anchor": "start"},
        "text": {"color": TEXT},
        "rule": {"color": TEXT},
        "line": {"strokeWidth": 1.8},
        "range": {"category": list(CLASSES)},
    }
