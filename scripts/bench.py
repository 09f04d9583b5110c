"""Our code beside others', timed: the command `ssl-adapt bench`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("bench")
