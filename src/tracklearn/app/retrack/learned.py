"""What tracking again knows of appearance: a network's features, and where one person ends in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tracklearn.app.formats import percent
from tracklearn.app.identities import calibrated, footage
from tracklearn.app.model.device import pick_device
from tracklearn.app.model.open import Model, open_model
from tracklearn.core.appearance import Bounds
from tracklearn.store.files import DamagedError, read_json, write_json
from tracklearn.store.identities.folder import CALIBRATION
from tracklearn.store.runs import Run
from tracklearn.types import Progress, Refusal


@dataclass(frozen=True)
class Learned:
    """A network, and the bounds on its features.

    Args:
        model: crops in, unit features out.
        bounds: where one person ends.
        origin: where the bounds come from, for people.
        notes: what to mind, a line each.
    """

    model: Model
    bounds: Bounds
    origin: str
    notes: tuple[str, ...] = ()


def learned(
    reid: str | Path,
    *,
    distance: float | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Learned:
    """The network of a run or of an .onnx file, and where one person ends for it.

    Of a run: what `tracklearn calibrate` wrote into it; where it did not, the run's own set is looked at now,
    and what that says is written there. Of a file: what `tracklearn export` noted in it.

    Args:
        reid: a finished run, or an .onnx file.
        distance: of unit features, in the place of what was learned.
        device: where a run's network computes.
        progress: told of crops looked at.

    Raises:
        FileNotFoundError: neither is there; a run's set has gone, and nothing says where one person ends.
        ValueError: a file of another kind; nothing says where one person ends; as `open_model`.
    """
    path = Path(reid)
    if not path.exists():
        raise FileNotFoundError(f"no such run or file: {path}")
    if path.is_file() and path.suffix.lower() != ".onnx":
        raise Refusal(
            f"{path} is neither a run nor an .onnx file: give a finished run, or what tracklearn export wrote"
        )
    if path.is_dir():
        Run(path).weights_path()  # refuses what is no run, or has not been trained to its end
    model = open_model(path, device=device)
    if distance is not None:
        return Learned(model, Bounds.at(distance), "the distance that was given")
    if path.is_file():
        if model.distance is None:
            raise Refusal(
                f"{path} does not say where one person ends for its features: give --distance, a distance of "
                "unit features (√(2 − 2 · cosine similarity)), or the run itself"
            )
        return Learned(model, Bounds.at(model.distance), f"what {path.name} says of itself")
    return _of_run(model, path, device, progress)


def _of_run(model: Model, path: Path, device: str | None, progress: Progress | None) -> Learned:
    """The bounds of a run, from its calibration or from its set."""
    file = path / CALIBRATION
    said = read_json(file) if file.is_file() else None
    origin = str(file)
    if not isinstance(said, dict) or "tracking" not in said:
        run = Run(path)
        places = [(run.path / learned["path"]).resolve() for learned in run.sets]
        gone = next((place for place in places if not place.is_dir()), None)
        if gone is not None:
            raise FileNotFoundError(
                f"the set that {path} learned from is not at {gone}, and nothing else says where one person "
                f"ends for it: tracklearn calibrate {path} SET, with a set of this camera, or give --distance"
            )
        gathered = footage.gather(path, places)
        features = footage.frame_features(gathered, device=pick_device(device), progress=progress)
        found = calibrated.learn(gathered, features).to_dict() | {
            "sets": [one.digest for one in gathered.sets]
        }
        if said is None:  # one of an older version may tell of other sets: it stays
            write_json(file, found)
        said, origin = found, f"pairs of {', '.join(place.name for place in places)}"
    if said["tracking"] is None:
        raise Refusal(
            f"nothing was learned of where one person ends for {path}: too few pairs in its footage are "
            "known as one person or as two; give --distance, or tracklearn calibrate it on a longer set"
        )
    try:
        bounds = Bounds.of_dict(said["tracking"])
        within = said["within_camera"]
        wrong, separates = float(within["error"]), bool(within["separates"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{file} is not what tracklearn calibrate writes: remove it, or calibrate again"
        ) from error
    notes = () if separates else (f"{calibrated.CANNOT} ({percent(wrong)} on the wrong side)",)
    return Learned(model, bounds, origin, notes)
