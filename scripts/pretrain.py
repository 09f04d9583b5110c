"""Pre-train: accelerate launch scripts/pretrain.py recipe=NAME key=value ... (--help lists everything)."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("pretrain")
