"""Which submodules can be edges, and why others can't."""

from torch import nn

from ssl_adapt.backbones.adaptable_probe import Probe


class NormAndReLU(nn.BatchNorm1d):
    """Named and shaped like a BatchNorm, as timm's BatchNormAct2d is, but no scale can be folded into it."""

    def forward(self, x):
        return super().forward(x).relu()


class Odd(nn.Module):
    """A network with one submodule for each reason not to be an edge, and a few that can be."""

    def __init__(self):
        super().__init__()
        for name in ("good", "twice", "unused", "tied", "tied_too", "read", "gate"):
            setattr(self, name, nn.Linear(4, 4))
        self.tied_too.weight = self.tied.weight
        self.wide, self.narrow = nn.Linear(4, 6), nn.Linear(6, 4)
        self.inplace, self.nothing = nn.ReLU(inplace=True), nn.Dropout()
        self.normed = nn.Sequential(nn.Linear(4, 4), NormAndReLU(4))
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x):
        x = x.mean((2, 3))
        x = self.nothing(self.inplace(self.twice(self.twice(self.narrow(self.wide(self.good(x) + x))))) + x)
        x = self.tied(x) + self.tied_too(x) + self.normed(x) + x * self.read.weight.sum() + self.read(x)
        x = self.block(x) + x
        return x * self.gate(x)


def test_reasons():
    names = [name for name, _ in Odd().named_modules() if name]
    rows = {row.name: row for row in Probe(Odd(), (4, 2, 2)).judge(names)}
    expected = {
        "good": "keeps its input's shape",
        "wide": "changes the shape",
        "twice": "called 2 times",
        "inplace": "in place",
        "nothing": "gives its input back",
        "unused": "not called",
        "tied": "shares parameters",
        "normed": "keeps its input's shape",
        "normed.1": "inside the edge 'normed'",
        "read": "fails with AttributeError",
        "gate": "would not depend on the images",
        "block": "keeps its input's shape",
        "block.0": "inside the edge 'block'",
    }
    assert {name: reason for name, reason in expected.items() if reason not in rows[name].reason} == {}
    taken = [name for name, row in rows.items() if row.taken]
    assert taken == ["good", "normed", "block", "gate"]
