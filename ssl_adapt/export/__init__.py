"""Networks as folders: `export_timm` writes one, `load_export` checks and loads one."""

from ssl_adapt.export.timm import export_timm, load_export

__all__ = ["export_timm", "load_export"]
