"""A network handed on to others: the command `ssl-adapt export`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("export")
