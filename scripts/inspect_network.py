"""The edges of a network: the command `ssl-adapt inspect`; a script inspect.py would hide Python's own module."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("inspect")
