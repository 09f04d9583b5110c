"""Features of all images of a set as files: the command `ssl-adapt embed`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("embed")
