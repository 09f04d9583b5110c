"""Train on: accelerate launch scripts/finetune.py recipe=NAME model.weights=FOLDER key=value ... (see --help)."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("finetune")
