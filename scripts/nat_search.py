"""NAT's search for a better cell: the command `ssl-adapt nat`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("nat")
