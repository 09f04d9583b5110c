"""Figures of architectures and of theta: the command `ssl-adapt report`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("report")
