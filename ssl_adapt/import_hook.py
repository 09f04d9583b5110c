"""A post-import hook: calls a function once a module has been imported."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def after_import(name: str, then: Callable[[], object]) -> None:
    """Call `then` once the top-level module `name` has been imported: at once if it is there already.

    Python has no such hook of its own (PEP 369 was withdrawn). Here a finder in front of all others asks these for the
    module, and adds `then` to the loader that they return. The module gets its own loader back before it runs, so that
    no trace of this is left. `importlib.util.find_spec` imports nothing and leaves the hook in place, and so does an
    import that fails.
    """
    if sys.modules.get(name) is not None:  # None bars an import
        then()
    else:
        sys.meta_path.insert(0, _Finder(name, then))


class _Finder(MetaPathFinder):
    def __init__(self, name: str, then: Callable[[], object]) -> None:
        self.name = name
        self.then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, with `then` added; None for all other modules."""
        if fullname != self.name:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(Loader):
    def __init__(self, own: Loader, finder: _Finder) -> None:
        self.own = own
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module as its own loader makes it."""
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module by its own loader, then call the function."""
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.own
        self.own.exec_module(module)
        sys.meta_path.remove(self.finder)
        self.finder.then()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)
