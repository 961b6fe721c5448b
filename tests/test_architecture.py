"""The shape of the package: imports point one way, and what must be quick is quick."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "ismallnet"
MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
LAYERS = (
    ("__main__",),
    ("cli",),
    ("benchmark",),
    ("shared",),
    ("train", "detect", "calibrate", "convert"),
    ("evaluate", "objectives", "optim", "devices", "history", "large", "pictures", "tables", "listing"),
    ("detector",),
    ("export",),
    ("runtimes",),
    ("catalogue",),
    ("checkpoint",),
    ("config",),
    ("models", "filters", "metrics", "data", "losses", "draw"),
    ("labels", "plugins", "views"),
    ("targets", "maps", "rules", "tiles", "raster", "streams", "openvino_cpu"),
    ("media", "quantiles"),
    ("types", "pipeline", "publish"),
)
"""From the top down; a module may import from the layers below its own, and from its own package."""
LAYER = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
TORCH_FREE = (
    "ismallnet", "ismallnet.calibrate", "ismallnet.catalogue", "ismallnet.checkpoint", "ismallnet.cli",
    "ismallnet.config", "ismallnet.data", "ismallnet.detect", "ismallnet.detector", "ismallnet.draw",
    "ismallnet.evaluate", "ismallnet.export", "ismallnet.export.cache", "ismallnet.filters",
    "ismallnet.labels", "ismallnet.large", "ismallnet.maps", "ismallnet.media", "ismallnet.metrics",
    "ismallnet.openvino_cpu", "ismallnet.quantiles", "ismallnet.raster", "ismallnet.rules",
    "ismallnet.runtimes", "ismallnet.streams", "ismallnet.targets", "ismallnet.tiles", "ismallnet.types",
    "ismallnet.views",
)  # fmt: skip
HELP_CPU_S = 0.5


def part(module: str) -> str:
    """The piece of the package that a module belongs to: its name below ``ismallnet``."""
    return module.split(".")[1] if "." in module else ""


def imported(module: str) -> set[str]:
    """The modules of ours that a module names in its imports, wherever they stand but under TYPE_CHECKING."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; write it from ismallnet"
            source = node.module or ""
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else source for name in names}
    return {name for name in found if name in MODULES} - {"ismallnet"}


IMPORTS = {module: imported(module) for module in MODULES}


def test_every_module_has_a_place_in_the_layers() -> None:
    assert {part(module) for module in MODULES} - {""} <= LAYER.keys()


@pytest.mark.parametrize("module", [module for module in MODULES if part(module)])
def test_imports_point_down(module: str) -> None:
    own = LAYER[part(module)]
    up = {other for other in IMPORTS[module] if part(other) != part(module) and LAYER[part(other)] <= own}
    assert not up


def test_imports_have_no_cycle() -> None:
    remaining = dict(IMPORTS)
    while remaining:
        free = [module for module, needs in remaining.items() if not needs & remaining.keys() - {module}]
        assert free, f"a cycle among {sorted(remaining)}"
        for module in free:
            del remaining[module]


def test_importing_the_package_imports_no_other_module() -> None:
    """The public names are looked up when first used."""
    assert not IMPORTS["ismallnet"]


@pytest.mark.parametrize("module", MODULES)
def test_no_room_is_without_a_name(module: str) -> None:
    assert not {"utils", "util", "helpers", "common", "misc"} & set(module.split("."))


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_prints(module: str) -> None:
    calls = [
        node for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))) if isinstance(node, ast.Call)
    ]
    prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not prints or module.startswith("ismallnet.cli")


@pytest.mark.parametrize("module", MODULES)
def test_modules_have_under_450_lines(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) < 450


def test_file_map_of_the_readme_names_every_module_and_no_other() -> None:
    readme = (SOURCE.parents[1] / "README.md").read_text(encoding="utf-8")
    block = readme.split("src/ismallnet/\n", 1)[1].split("\ntests/", 1)[0]
    named = {name.strip(" /") for line in block.splitlines() for name in line[2:19].split(",")}
    assert named == {part(module) for module in MODULES} - {"", "__main__"}


def loaded_by(statement: str) -> set[str]:
    """The modules in memory after a statement in a fresh interpreter."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stdout))


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_is_imported_without_torch(module: str) -> None:
    assert "torch" not in loaded_by(f"import {module}")


@pytest.mark.parametrize("module", ["ismallnet", "ismallnet.types", "ismallnet.config", "ismallnet.cli"])
def test_module_is_imported_without_arrays(module: str) -> None:
    assert not {"numpy", "cv2", "scipy", "rich", "yaml"} & loaded_by(f"import {module}")


def test_help_takes_under_half_a_second() -> None:
    """Processor time, since the machine may be busy with other things; the best of three."""

    def children_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    readings = [children_s()]
    for _ in range(3):
        command = [sys.executable, "-m", "ismallnet", "--help"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        readings.append(children_s())
    assert min(after - before for before, after in pairwise(readings)) < HELP_CPU_S
