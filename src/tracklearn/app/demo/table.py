"""The table that the demo ends with."""

from __future__ import annotations

from typing import Any

from tracklearn.app.formats import percent


def table(judged: dict[str, Any], seconds: dict[str, float]) -> str:
    """What the demo found, for a terminal."""
    lines = ["people not seen in training       mAP   rank-1"]
    labels = {
        "baseline": "colour histogram",
        "untrained": "untrained network",
        "source_only": "trained on the source alone",
        "trained": "trained by Tracklearn",
    }
    for name, label in labels.items():
        if name not in judged:
            continue
        lines.append(f"  {label:<28} {judged[name]['mAP']:>6.1%}  {judged[name]['rank1']:>6.1%}")
    before, after = judged["noise"]["before"], judged["noise"]["after"]
    aside = judged["noise"]["aside_fraction"]
    less = f", {aside:.1%} not learned from" if aside else ""
    lines += [
        "noise of the training tracklets   r_FM    r_SW",
        f"  {'from the tracker':<28} {before['r_FM']:>6.2f}  {before['r_SW']:>6.2f}",
        f"  {'after isolation':<28} {after['r_FM']:>6.2f}  {after['r_SW']:>6.2f}"
        f"   ({judged['noise']['dropped_fraction']:.1%} of the frames dropped{less})",
        *_links(judged.get("links", [])),
        "seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
    ]
    return "\n".join(lines)


def _links(links: list[dict[str, float]]) -> list[str]:
    """First and last round of the links between cameras."""
    if not links:
        return []
    return ["links between cameras     precision   recall"] + [
        f"  {'round ' + str(e['round'] + 1):<24}{percent(e['precision']):>10} {percent(e['recall']):>8}"
        for e in (links[0], links[-1])
    ]
