"""The table of who may import whom (README, section Design), read from the sources."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search_spaces", "latency_models", "nas")
LEAVES = ("evaluate", "search", "compress", "export", "report", "data", "train")
SHARED = {"protocols", "candidate", "task", "run", "train", "metrics", "workers", "store", "results"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(part for part in parts if part != "__init__"), file))
    return found


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{file} uses a relative import")
    return found


def tops(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


@pytest.mark.parametrize(("name", "file"), modules(), ids=[name for name, _ in modules()])
def test_imports_go_down_only(name, file):
    used, top = imports(file), name.split(".")[0]
    if top == "search_spaces":
        assert not tops(file) & {"optuna", "onnx", "onnxruntime", "latency_models", "nas", "scipy", "sklearn"}
    if top == "latency_models":
        assert not tops(file) & {"optuna", "nas"}
        if not name.startswith("latency_models.backends"):
            assert "onnxruntime" not in tops(file)
        if "onnx" in tops(file):
            assert name.startswith(("latency_models.graph", "latency_models.qdq", "latency_models.backends"))
    parts = name.split(".")
    if top == "nas" and len(parts) > 1 and parts[1] in LEAVES:
        for other in used:
            steps = other.split(".")
            if steps[0] == "nas" and len(steps) > 1:
                assert steps[1] == parts[1] or steps[1] in SHARED, f"{name} imports {other}"
    if not name.startswith("nas.cli") and name != "nas.__main__":
        assert not any(other == "nas.cli" or other.startswith("nas.cli.") for other in used)
    if not name.startswith(("nas.cli", "nas.pipeline")) and name != "nas.__main__":
        assert not any(other.startswith("nas.pipeline") for other in used)


def test_torchvision_and_pickle_are_nowhere():
    for name, file in modules():
        assert not tops(file) & {"torchvision", "pickle", "cloudpickle", "joblib"}, name


HEAVY = {"torch", "scipy", "sklearn", "onnx", "onnxruntime", "plotly", "optuna", "fvcore"}


@pytest.mark.parametrize("statement", ["import nas, search_spaces, latency_models", "import nas.cli"])
def test_importing_loads_nothing_heavy(statement):
    script = f"{statement}; import sys; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


RE_EXPORTING = [
    *PACKAGES,
    *(
        str(file.parent.relative_to(ROOT)).replace("/", ".")
        for package in PACKAGES
        for file in sorted((ROOT / package).glob("*/__init__.py"))
        if "_HOME" in file.read_text()
    ),
]


@pytest.mark.parametrize("package", RE_EXPORTING)
def test_public_names_are_sorted_complete_and_there(package):
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    assert set(module.__all__) == set(module._HOME)
    submodules = {entry.name for entry in pkgutil.iter_modules(module.__path__)}
    assert not submodules & set(module.__all__), "importing the file would hide the name"
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense
