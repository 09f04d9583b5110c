"""The paper's tables: the command `ssl-adapt reproduce`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("reproduce")
