"""Networks that declare their edges; importing this package registers them with timm."""

import ssl_adapt.backbones.adaptable
import ssl_adapt.backbones.darts
import ssl_adapt.backbones.mobilenet
import ssl_adapt.backbones.proxyless
import ssl_adapt.backbones.resnet  # noqa: F401
