"""The command of the package: python -m ssl_adapt NAME key=value ..."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main()
