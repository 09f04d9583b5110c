"""A linear classifier on frozen features: the command `ssl-adapt linear`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("linear")
