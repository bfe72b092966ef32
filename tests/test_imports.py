"""The house's rules: imports run one way and in no circle, nobody opens what is private, and few the truth.

And the package stays light to import.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tracklearn

PACKAGE = Path(tracklearn.__file__).parent
MAY_IMPORT = {
    "types": set(),
    "runtimes": {"types"},
    "core": {"types", "core"},
    "learn": {"types", "runtimes", "core", "learn"},
    "store": {"types", "runtimes", "core", "store"},
    "world": {"types", "world"},
    "app": {"types", "runtimes", "core", "learn", "store", "world", "app"},
}
# The package's own two files belong to no layer: they name what is public and start the command line.
OWN = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p not in OWN)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_of(path: Path, package: Path = PACKAGE) -> str:
    """The dotted name of a file; of a room the room's."""
    parts = ("tracklearn", *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, package: Path = PACKAGE) -> set[tuple[str, str]]:
    """(module, name) of all that a file imports of this package, anywhere in it; name "" for a module whole.

    Relative imports and those inside functions count, and those for type checkers too.
    """
    found = set()
    own = module_of(path, package).split(".")
    room = own if path.name == "__init__.py" else own[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = room[: len(room) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {(module, alias.name) for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] == "tracklearn"}


def leads_to(path: Path, package: Path = PACKAGE) -> set[str]:
    """The modules of this package that a file imports, each by the file that holds it."""
    files = {module_of(p, package) for p in package.rglob("*.py")}
    found = set()
    for module, name in imports(path, package):
        whole = f"{module}.{name}"
        found.add(whole if whole in files else module)
    return (found & files) - {module_of(path, package)}


def circle(package: Path = PACKAGE) -> list[str]:
    """Modules each of which imports the next, and the last the first; empty where there is no such circle."""
    edges = {module_of(p, package): sorted(leads_to(p, package)) for p in package.rglob("*.py")}
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return []
        for after in edges[module]:
            if found := walk(after, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := walk(module, []))), [])


def private_imports(package: Path = PACKAGE) -> list[str]:
    """Imports of names that begin with an underscore; of those with two only `__version__` is public."""
    return [
        f"{module_of(path, package)} imports {module}.{name}"
        for path in sorted(package.rglob("*.py"))
        for module, name in imports(path, package)
        if name.startswith("_") and name != "__version__"
    ]


# What opens ground truth is told by its folder: these rooms of `app` hold nothing that does, and import
# nothing that does. A labelled source is planned with its labels: `plan.py` reads them.
BLIND = ("pipeline", "search", "report", "web", "identities", "retrack", "model")
SEEING = ("judge", "noise", "demo", "experiments")
TRUTH = {"read_truth", "match_truth"}
MAY_SEE = {"pipeline/plan.py"}


def opens_truth(package: Path = PACKAGE) -> list[str]:
    """Imports by which a room that must be blind to ground truth would see it."""
    found = []
    for room in BLIND:
        for path in sorted((package / "app" / room).rglob("*.py")):
            if path.relative_to(package / "app").as_posix() in MAY_SEE:
                continue
            for module, name in sorted(imports(path, package)):
                seeing = f"{module}.{name}".startswith(tuple(f"tracklearn.app.{seen}." for seen in SEEING))
                if seeing or name in TRUTH:
                    found.append(f"{module_of(path, package)} imports {module}.{name}")
    return found


def test_no_file_imports_itself_by_way_of_others():
    assert circle() == []


def test_private_names_stay_in_their_file():
    assert private_imports() == []


def test_what_opens_ground_truth_is_told_by_its_folder():
    assert opens_truth() == []


@pytest.mark.parametrize(
    ("file", "line", "rule"),
    [
        ("core/features.py", "def later():\n    from tracklearn.core.cluster import dbscan\n", circle),
        ("core/threads.py", "from . import features\n", circle),
        ("app/formats.py", "from tracklearn.app.search.sheet import _short\n", private_imports),
        ("app/report/page.py", "from tracklearn.app.judge import rates\n", opens_truth),
        (
            "app/search/hits.py",
            "def f():\n    from tracklearn.app.judge.rates import noise_rates\n",
            opens_truth,
        ),
        ("app/report/of_run.py", "from tracklearn.store.sets.tracklets import read_truth\n", opens_truth),
    ],
)
@pytest.mark.long
def test_the_rules_find_what_breaks_them(file, line, rule, tmp_path):
    copy = tmp_path / "tracklearn"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert not rule(copy)
    with (copy / file).open("a") as broken:
        broken.write(line)
    assert rule(copy)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    layers = {f"{module}.{name}".split(".")[1] for module, name in imports(path)}
    wrong = {name for name in layers & set(MAY_IMPORT) if name not in MAY_IMPORT[layer(path)]}
    assert not wrong, f"{path.name} of {layer(path)} imports {sorted(wrong)}"


def test_every_layer_is_covered():
    assert {layer(p) for p in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", ["tracklearn", "tracklearn.app.cli"])
def test_import_is_light(module):
    heavy = "torch,av,numba,cv2,sklearn,scipy,matplotlib,pyarrow,trackers,transformers"
    code = f"import sys, {module}; print(*[m for m in '{heavy}'.split(',') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
