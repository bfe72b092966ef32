"""The model card of an export, README.md: what it is, how it is loaded, what it was measured to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracklearn.app.formats import flat, percent
from tracklearn.app.model.consumers import Threshold

_LIMITS = """\
- Meant for finding the same person again in footage like that it learned from: same cameras, light, season
  and clothes. Elsewhere measure first; the threshold above holds for that footage alone.
- It says how alike two pictures are. It does not say who somebody is, and a match is a guess: show it with
  its distance, and let a person look before anything follows from it.
- Filming people and re-identifying them is bound to law, consent and purpose; see to these where you are.
  Not for decisions on single persons.
- No picture is in these files; what the weights keep of the footage is not known."""


def card(result: Mapping[str, Any], *, use: str, thresholds: Sequence[Threshold]) -> str:
    """The card as Markdown.

    Args:
        result: the record of the export, as `app.model.export` writes it.
        use: how the file is loaded, Markdown.
        thresholds: of the run's own footage, none where they could not be calibrated.
    """
    blocks = [
        f"# {result['name']}",
        _what(result),
        "## Files\n\n" + _table(("file", "bytes", "sha256"), _files(result)),
        *(["## Loading it\n\n" + use] if use else []),
        "## Threshold\n\n" + _threshold(result, thresholds),
        "## Compared with the network it was made from\n\n" + _parity(result),
        "## Training\n\n" + _training(result),
        "## Intended use and limits\n\n" + _LIMITS,
        f"Written by Tracklearn {result['tracklearn']}.",
    ]
    return "\n\n".join(blocks) + "\n"


def _what(result: Mapping[str, Any]) -> str:
    mean, std = result["pixels"]["mean"], result["pixels"]["std"]
    height, width = result["shape"]
    outside = (
        "the file holds the rest of the normalisation"
        if result["pixels"]["kind"] == "baked"
        else f"then (x − mean) / std with mean {mean} and std {std}, outside the file"
    )
    feature = (
        "of length 1, behind the batch-norm neck: the ones that `tracklearn search` compares"
        if result["feature"] == "search"
        else "before the batch-norm neck, whose shift this format has no place for. None is below 0, so "
        "cosine distances are small: thresholds of other networks do not carry over"
    )
    lines = [
        f"A person re-identification network ({result['backbone']}), learned from video without labels by "
        f"{result['method'].upper()}.",
        "",
        f"- Input: crops of one person, RGB, stretched to {height} × {width} (height × width), divided by "
        f"255, {outside}.",
        f"- Output: {result['width']} values a crop, {feature}.",
    ]
    if result["quantised"]:
        done = result["quantised"]
        lines.append(
            f"- 8 bits: {done['layers'] - done['float_layers']} of {done['layers']} convolutions, calibrated "
            f"on {done['crops']} crops of the set."
        )
    return "\n".join(lines)


def _files(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [(f["name"], f"{f['bytes']:,}", f"`{f['sha256'][:16]}…`") for f in result["files"]]


def _threshold(result: Mapping[str, Any], thresholds: Sequence[Threshold]) -> str:
    found = result["calibration"]
    if found is None:
        return (
            "None could be calibrated: the set has too few moments at which one camera sees two people. Look "
            "at distances of your own footage before you set one."
        )
    rows = [(f"`{t.name}`" if "_" in t.name else t.name, f"{t.value:.3f}", t.text) for t in thresholds]
    rows += [
        (
            f"false merges {percent(float(share))}",
            f"{distance:.3f}",
            "distance of unit features, √(2 − 2 · cosine)",
        )
        for share, distance in found["false_merges"].items()
    ]
    text = _table(("setting or distance", "value", "what it is"), rows)
    text += (
        "\n\nWhere the threshold divides, errors of both kinds are alike; a rate of false merges is the "
        f"share of two people's pairs below a distance. All is read off {found['same']['n']} pairs "
        "known to be one person (a crop against the mean of another part of the same undisturbed track) and "
        f"{found['different']['n']} known to be two (seen by one camera at the same moment); "
        f"{percent(found['error'])} of either kind are on the wrong side."
    )
    if not found["separates"]:
        text += "\n\n**The two kinds overlap too much to be told apart: do not trust identities here.**"
    return text


def _parity(result: Mapping[str, Any]) -> str:
    p, speed = result["parity"], result["images_per_second"]
    rows = [
        ("largest difference of a value", f"{p['max_difference']:.2g}"),
        ("cosine, mean and least", f"{p['cosine']:.5f}, {p['least_cosine']:.5f}"),
        (
            "rank-1 without labels, this file and search's features",
            f"{100 * p['rank1']:.1f} %, {100 * p['rank1_search']:.1f} %",
        ),
        (
            f"images a second on a CPU, {result['threads']} threads, this file and torch",
            f"{speed['export']:.0f}, {speed['torch']:.0f} ({speed['export'] / speed['torch']:.1f} ×)",
        ),
    ]
    if "float32" in speed:
        rows.append(("the same file in float32", f"{speed['float32']:.0f}"))
    return _table(("on real crops of the set", f"{p['n']} crops"), rows) + (
        "\n\nRank-1 without labels: a crop of the first half of an undisturbed stretch of a track is asked "
        f"for among crops of all second halves ({p['n_queries']} queries); right is its own track. People "
        "who come back under another number count as wrong, so only the difference of the two says something."
    )


def _training(result: Mapping[str, Any]) -> str:
    training = result["training"]
    rows = [
        ("run", f"`{training['run'][:16]}…`"),
        ("tracklet set", f"`{training['set'][:16]}…`"),
        ("method, seed", f"{result['method']}, {training['seed']}"),
        ("starting weights", str(training["weights"])),
        ("labels used", "; ".join(training["labels_used"]) or "none in training here"),
        *[(name, value) for name, value in flat(training["counts"])],
    ]
    text = _table(("what", ""), rows)
    if training["scores"]:
        scores = [
            (s["benchmark"], s["protocol"], f"{100 * s['mAP']:.1f}", f"{100 * s['rank1']:.1f}")
            for s in training["scores"]
        ]
        text += "\n\nScores of the run's own network (`tracklearn evaluate`), in percent:\n\n"
        text += _table(("benchmark", "protocol", "mAP", "rank-1"), scores)
    settings = "\n".join(f"{name} = {value}" for name, value in flat(training["settings"]))
    return f"{text}\n\n<details><summary>Settings</summary>\n\n```\n{settings}\n```\n\n</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
