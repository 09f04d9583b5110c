"""The nearest images of an embedded set: the command `ssl-adapt retrieve`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("retrieve")
