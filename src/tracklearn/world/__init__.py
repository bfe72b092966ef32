"""The generated multi-camera world of the demo and the tests: frames and ground truth from a seed."""

from __future__ import annotations

from tracklearn.world.scene import Boxes, Config, World

__all__ = ["Boxes", "Config", "World", "make"]


def make(config: Config | None = None) -> World:
    """The world of a configuration; frames are rendered when asked for.

    >>> world = make(Config(n_people=2, seconds=20))
    >>> world.cameras
    ('plaza', 'lobby', 'street', 'garden')
    """
    return World(config or Config())
