"""kNN of frozen features: the command `ssl-adapt knn`."""

from ssl_adapt.commands import main

if __name__ == "__main__":
    main("knn")
