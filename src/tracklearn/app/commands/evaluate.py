"""Judging a network on a benchmark with its official protocol, and tracks by ground truth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import Backbone, Device, Json, On, Workers, done, overridden, say
from tracklearn.types import Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.app.model.open import Model


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="Run, written by train, or an .onnx file; none with weights. With --truth: tracks.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Data set, of those that tracklearn datasets lists.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", help="Folder that holds it; of the world, the demo's folder; of folder, also a table."
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            "--truth",
            help="Judge tracks instead (MOTChallenge file or folder, or a folder of identities) by this "
            "ground truth of the same films, with one number for a person in all; may be repeated.",
        ),
    ] = None,
    persons: Annotated[
        Path | None,
        typer.Option(
            "--persons", help="With --truth: file of lines NAME: number …, the truth's of one person."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", help="official (the default) or gallery-excludes-queries; named in the result."
        ),
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Re-rank by k-reciprocal neighbours (20, 6, 0.3).")
    ] = False,
    ap: Annotated[
        str, typer.Option("--ap", help="Average precision: hits (the default), trapezoid or sklearn.")
    ] = "hits",
    split: Annotated[
        int | None,
        typer.Option(
            "--split",
            help="Which split, from 0; all of them by default, but of a run that was trained on a split's "
            "training half that split.",
        ),
    ] = None,
    splits: Annotated[Path | None, typer.Option("--splits", help="File of splits (.json or .mat).")] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            help="Of a run: weights (trained) or start (before training). Without RUN: imagenet, or a "
            ".safetensors or .pth file, as it comes.",
        ),
    ] = "weights",
    backbone: Backbone = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Of weights without a run: network.key=value, such as network.height=128."
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", help="Pixel mean of an .onnx file, R,G,B of 0-1 [ImageNet's].")
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", help="Pixel deviation of an .onnx file, R,G,B of 0-1 [ImageNet's].")
    ] = None,
    interpolation: Annotated[
        str | None,
        typer.Option(
            "--resize", help="How crops are enlarged for an .onnx file: bilinear (the default) or bicubic."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write; RUN/evaluation-NAME, or beside the file."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what is there of an incomplete data set.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed that draws the queries shown.")] = 0,
    device: Device = "auto",
    workers: Workers = None,
    on: On = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace an evaluation that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Judge a trained network on a benchmark by its protocol, or tracks by the truth of their films."""
    if truth:
        _judge_tracks(run, truth, persons, as_json, other=benchmark or root or out or workers or on)
        return
    if benchmark is None or root is None or persons is not None:
        raise Refusal(
            "give --benchmark and --root to judge a network, or --truth (and --persons) to judge tracks"
        )
    from tracklearn.app.judge import benchmark as app

    with Bars() as bars:
        model = _model(
            run,
            weights,
            overridden(settings, backbone=("network.backbone", backbone)),
            device=device,
            elsewhere=on is not None,
            mean=_three("--mean", mean),
            std=_three("--std", std),
            interpolation=interpolation,
            progress=bars,
        )
        result = app.evaluate(
            model,
            benchmark,
            root,
            out=out,
            protocol=protocol,
            rerank=rerank,
            ap=ap,
            split=split,
            splits=splits,
            partial=partial,
            seed=seed,
            resume=resume,
            workers=workers,
            on=on,
            progress=bars,
            tell=bars.note,
        )
    done(result["out"], result, as_json, app.table(result))


def _judge_tracks(
    tracks: Path | None, truth: list[Path], persons: Path | None, as_json: bool, *, other: Any
) -> None:
    """Scores of tracks, to a person or a program."""
    from tracklearn.app.judge import tracks as app

    if tracks is None:
        raise Refusal(
            "--truth judges tracks: name their file or folder, or a folder of identities, before it"
        )
    if other is not None:
        raise Refusal(
            "--truth judges tracks and --benchmark a network: leave --benchmark, --root, --out, "
            "--workers and --on out"
        )
    result = app.judge([tracks], truth, persons=persons)
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        done(tracks, result, as_json)
    else:
        say(app.text(result))


def _model(
    run: Path | None, weights: str, settings: list[str], *, progress: Progress, **options: Any
) -> Model:
    """What is to be judged: a run or an .onnx file, or without either weights as they come."""
    from tracklearn.app.model.open import WEIGHTS, open_model, open_weights

    if run is not None:
        if settings:
            raise Refusal(f"--set and --backbone belong to weights without a run: {run} knows its network")
        return open_model(run, which=weights, **options)
    if weights in WEIGHTS:
        raise Refusal("nothing to judge: give a RUN or an .onnx file, or --weights FILE (or imagenet)")
    return open_weights(weights, settings=settings, progress=progress, **options)


def _three(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(number) for number in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise Refusal(f"{option} is {text!r}, expected three numbers R,G,B such as 0.485,0.456,0.406")
    return numbers
