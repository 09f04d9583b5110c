"""Many runs: the command `ssl-adapt grid`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("grid")
