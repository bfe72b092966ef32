"""Saving what matplotlib drew."""

from __future__ import annotations

import warnings
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, file: IO[Any], kind: str, **options: Any) -> None:
    """Write a figure; letters that the font lacks become boxes, and nothing is said of them.

    Args:
        figure: what was drawn.
        file: open for bytes, or for text where `kind` is "svg".
        kind: "png" or "svg".
        options: further ones of `Figure.savefig`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format=kind, **options)
