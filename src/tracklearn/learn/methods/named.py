"""The methods by name: where their settings and values are, and how another one joins them.

A method is a module (or a room's file) with a pydantic model `Config` and a function `method(config) ->
learn.method.Method`. One that comes with the program is a line in `_MODULES`; one of somebody's own is made
known by `register`.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from tracklearn.types import Refusal

_MODULES = {
    "tmc": "tracklearn.learn.methods.tmc",
    "mmt": "tracklearn.learn.methods.mmt",
    "uga": "tracklearn.learn.methods.uga",
    "msplr": "tracklearn.learn.methods.msplr.method",
    "cap": "tracklearn.learn.methods.cap",
}
_OWN: dict[str, Any] = {}


def names() -> tuple[str, ...]:
    """The names of all methods, in the order in which they are told to people."""
    return (*_MODULES, *_OWN)


def register(name: str, module: Any) -> None:
    """Let this process know a method of somebody's own.

    Args:
        name: what it is called in settings (`name.key`), runs and reports: letters, digits and underscores.
            One that was registered before is replaced.
        module: anything with `Config` and `method`, such as the calling script: `sys.modules[__name__]`.

    Raises:
        ValueError: the name belongs to a method of the program or to a section of settings, or something is
            missing.
    """
    taken = {*_MODULES, "ingest", "network", "train"}
    if name in taken or not name.isidentifier():
        raise Refusal(
            f"a method cannot be called {name!r}: choose a word other than {', '.join(sorted(taken))}"
        )
    for part in ("Config", "method"):
        if not callable(getattr(module, part, None)):
            raise Refusal(
                f"method {name!r} has no {part}: it needs a model Config and a function method(config)"
            )
    for other in names():
        if other != name and method_module(other).Config is module.Config:
            raise Refusal(f"the Config of method {name!r} is that of {other}: make a subclass of it")
    _OWN[name] = module


def method_module(method: str) -> Any:
    """The module of a method: it has Config and method(config).

    Raises:
        ValueError: there is no such method.
    """
    if method in _OWN:
        return _OWN[method]
    if method not in _MODULES:
        raise Refusal(f"method {method!r} is unknown: choose one of {', '.join(names())}")
    return import_module(_MODULES[method])


def method_of(config: Any) -> str:
    """The name of the method that settings belong to; those of a subclass belong to the nearest one above it.

    Raises:
        ValueError: they belong to none.
    """
    models = {method_module(name).Config: name for name in names()}
    for kind in type(config).__mro__:
        if kind in models:
            return models[kind]
    raise Refusal(
        f"settings of type {type(config).__qualname__} belong to no method: use the Config of "
        f"{', '.join(names())}, a subclass of one, or make your own known with methods.named.register"
    )


def takes_source(method: str) -> bool:
    """Whether a method can learn from a labelled source set first."""
    return "source" in inspect.signature(method_module(method).method).parameters
