"""A network as a folder: written by `export_timm`, checked and loaded by `load_export`."""

from ssl_adapt.export.timm import export_timm, load_export

__all__ = ["export_timm", "load_export"]
