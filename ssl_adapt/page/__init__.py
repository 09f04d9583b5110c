"""The page of a run: one HTML file that needs no network, and the same figures as SVG or PDF.

`write_page.py` gathers the sections, each a module that turns a `RunRecord` into a `PageSection`, and renders them with
the templates. Figures are Vega-Lite charts, built with Altair: the page draws them in the browser, and `vl-convert`
draws the same ones into files.
"""
