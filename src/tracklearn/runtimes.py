"""One door for the optional libraries: their telemetry is switched off before they are imported.

Several of them write identifiers into the home folder and look up their vendor's host once they are imported
or used. Nothing of this program is to be told to anybody, so no other file imports them
(`tests/test_runtimes.py`). Measured with onnxruntime 1.31 and openvino 2026.4: onnxruntime heeds
`ORT_DISABLE_TELEMETRY=1` only while it is imported, and `disable_telemetry_events()` leaves its files and its
look-ups; openvino's import starts the package `openvino_telemetry`, whatever the environment says, unless
that package cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tracklearn.types import Refusal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """An optional library.

    Args:
        install: what pip installs to have it.
        title: its name in a message, where that is not its module's.
        environment: variables that switch its telemetry off, set before the import.
        hidden: modules by which it reports, made impossible to import.
        late: what can still be done with one that was imported before; takes the module.
    """

    install: str
    title: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    late: Callable[[Any], None] | None = None


def _quiet_onnxruntime(module: Any) -> None:
    module.disable_telemetry_events()


def _quiet_hub(_: Any) -> None:
    # Read at every request, from here.
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


# The last: the library would have a service of the hub convert weights that are not safetensors.
_HUB = {"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"}

# FastAPI tells of requests where somebody set an address for OpenTelemetry: people are looked for in them.
_OTEL = {"OTEL_SDK_DISABLED": "true", "FASTAPI_OTEL_AUTO_CONFIGURE": "false"}

RUNTIMES = {
    "onnxruntime": Runtime(
        '"tracklearn[onnx]"', environment={"ORT_DISABLE_TELEMETRY": "1"}, late=_quiet_onnxruntime
    ),
    "onnx": Runtime('"tracklearn[onnx]"'),
    "openvino": Runtime('"tracklearn[openvino]"', "OpenVINO", hidden=("openvino_telemetry",)),
    "transformers": Runtime('"tracklearn[hub]"', environment=_HUB, late=_quiet_hub),
    "huggingface_hub": Runtime('"tracklearn[hub]"', environment=_HUB, late=_quiet_hub),
    "ray": Runtime('"tracklearn[ray]"', "Ray", environment={"RAY_USAGE_STATS_ENABLED": "0"}),
    "fastapi": Runtime('"tracklearn[web]"', "FastAPI", environment=_OTEL),
    "starlette": Runtime('"tracklearn[web]"'),
    "uvicorn": Runtime('"tracklearn[web]"'),
    "psycopg": Runtime('"tracklearn[postgres]"', "psycopg (PostgreSQL)"),
    "pgvector": Runtime('"tracklearn[postgres]"'),
}

_opened: set[str] = set()


def load(name: str) -> Any:
    """The module `name`, a library of `RUNTIMES` or a part of one, imported with its telemetry off.

    A variable that asks for telemetry is overruled. Where the library was imported before, by somebody else
    and with its telemetry on, that is logged with what to do.

    Raises:
        ValueError: it is not installed, or damaged; the message says how to have it.
        KeyError: it is none of `RUNTIMES`.
    """
    root = name.partition(".")[0]
    runtime = RUNTIMES[root]
    title = runtime.title or root
    if root not in _opened and sys.modules.get(root) is not None:
        _late(root, runtime)
    _switch_off(runtime)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        raise Refusal(f"{title} is not installed: pip install {runtime.install}") from None
    except ImportError as error:
        raise Refusal(
            f"{title} is installed but cannot be imported ({error}): "
            f"pip install --force-reinstall {runtime.install}"
        ) from error
    _opened.add(root)
    return module


def installed(name: str) -> bool:
    """Whether a library of `RUNTIMES` is there to be loaded; it is not imported."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _switch_off(runtime: Runtime) -> None:
    os.environ.update(runtime.environment, DO_NOT_TRACK="1")
    for module in runtime.hidden:
        sys.modules[module] = None  # type: ignore[assignment]


def _late(root: str, runtime: Runtime) -> None:
    """Quieten a library that was imported before, and say so where it has spoken or may go on speaking."""
    unset = [f"{key}={value}" for key, value in runtime.environment.items() if os.environ.get(key) != value]
    heard = [module for module in runtime.hidden if sys.modules.get(module) is not None]
    if runtime.late is not None:
        runtime.late(sys.modules[root])
    if unset or heard:
        remedy = f"set {' '.join(unset)} in the environment" if unset else f"uninstall {' '.join(heard)}"
        logger.warning(
            "%s was imported before its telemetry could be switched off: let tracklearn import it first, "
            "or %s",
            root,
            remedy,
        )
