# SPDX-License-Identifier: Apache-2.0
"""The rules of the house, as tests: rings, sizes, docstrings, headers, generated files, and true pointers."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flb", "flb_node", "flb_aggregator", "flb_cli")
LONGEST = 300
OUTER_RINGS = {
    "flb.accounting",
    "flb.chain",
    "flb.base_model",
    "flb.config_file",
    "flb.file_digests",
    "flb.keystore",
    "flb.store",
    "flb.journal",
    "flb.config",
}
WITH_TORCH = {
    f"flb_node.{name}"
    for name in (
        "adapter_weights", "attached", "base", "compute_dtype", "evaluate", "fedprox", "frozen_part", "held_out",
        "measurement", "optimizer_state", "out_of_memory", "packed_attention", "peft_folder", "quantization", "ranks",
        "report", "step_watch", "trainer", "trl_run", "watch",
    )
}  # fmt: skip
DRAWERS = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "core", "shared"}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository; those that git does not know yet count too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).is_file()]


def modules() -> list[Path]:
    """Hand-written Python."""
    return [path for path in tracked("*.py") if "v1" not in path.relative_to(ROOT).parts]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.unit
@pytest.mark.parametrize("path", modules(), ids=shown)
def test_module__header_docstring_and_size(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text)), "a module says in its docstring what it is"
    assert text.count("\n") <= LONGEST, f"more than {LONGEST} lines: split it by responsibility"
    assert path.stem not in DRAWERS, "a name for what it is, not a drawer"


@pytest.mark.unit
@pytest.mark.parametrize(
    "path", tracked("*.sol", "*.proto", "*.js", "*.mjs", "Makefile", "tools/setup", ".ci/run"), ids=shown
)
def test_other_source__has_its_header(path: Path) -> None:
    assert "SPDX-License-Identifier: Apache-2.0" in path.read_text()[:200]


@pytest.mark.unit
def test_public_names__have_docstrings() -> None:
    bare = []
    for path in modules():
        if path.relative_to(ROOT).parts[0] not in PACKAGES:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                bare += [] if ast.get_docstring(node) else [f"{shown(path)}: {node.name}"]
    assert bare == []


@pytest.mark.unit
def test_rings__imports__point_down() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.unit
def test_rings__modules__are_all_in_the_contracts() -> None:
    """A contract covers what it names: a module that nobody added would escape it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    by_name = {contract["name"]: contract for contract in contracts}
    inside = {f"flb.{path.stem}" for path in (ROOT / "flb").iterdir() if path.suffix == ".py" or path.is_dir()}
    inside -= {"flb.__init__", "flb.__pycache__", "flb.v1"}
    layers = {name for layer in by_name["Layers point down"]["layers"] for name in layer.split(" | ")}
    assert inside == {name for name in layers if name.startswith("flb.")}
    assert set(by_name["The core does no I/O"]["source_modules"]) == inside - OUTER_RINGS
    without_chain = set(by_name["One place for chain access"]["source_modules"])
    assert without_chain == (inside | set(PACKAGES)) - {"flb", "flb.chain"}
    node = {f"flb_node.{path.stem}" for path in (ROOT / "flb_node").glob("*.py")} - {"flb_node.__init__"}
    assert (
        set(by_name["torch only where models are"]["source_modules"]) == {"flb", "flb_aggregator"} | node - WITH_TORCH
    )


@pytest.mark.unit
@pytest.mark.parametrize("package", ["flb.rounds", "flb.audit", "flb.planner", "flb_aggregator.pipeline"])
def test_core__imported__loads_no_heavy_library(package: str) -> None:
    code = f"import sys, {package}; print(sorted({{'torch','eth_account','requests','grpc','transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.unit
def test_aggregator__imported__loads_neither_torch_nor_web3() -> None:
    code = "import sys, flb_aggregator.app; print(bool({'torch', 'web3', 'cryptography'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.unit
@pytest.mark.parametrize("package", PACKAGES)
def test_pure_modules__have_a_test_file_of_their_own(package: str) -> None:
    pure = ("delta", "merkle", "identity", "roster", "records", "admission", "rounds", "planner", "forecast", "spec", "store",
            "keystore", "config_file", "audit", "pipeline", "publish", "sessions", "intake", "data", "commitment")  # fmt: skip
    missing = []
    for path in (ROOT / package).glob("*.py"):
        if path.stem in pure and not (ROOT / "tests" / package / f"test_{path.stem}.py").exists():
            missing.append(shown(path))
    assert missing == []


def declared(*extras: str) -> set[str]:
    """Normalized names of what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in extras for name in project["optional-dependencies"][extra]]
    return {canonical(re.split(r"[^\w.-]", name)[0]) for name in wanted}


def canonical(name: str) -> str:
    """The name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("package", "extras"),
    [("flb", ("dp",)), ("flb_aggregator", ()), ("flb_node", ("node",)), ("flb_cli", ("node", "demo"))],
)
def test_imports__third_party__are_declared(package: str, extras: tuple[str, ...]) -> None:
    owners, allowed = packages_distributions(), declared(*extras)
    undeclared = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {name.partition(".")[0] for name in names} - set(PACKAGES) - sys.stdlib_module_names:
                if not {canonical(owner) for owner in owners.get(top, [])} & allowed:
                    undeclared.append(f"{shown(path)}: {top}")
    assert undeclared == []


@pytest.mark.unit
def test_generated_protobuf__belongs_to_its_sources() -> None:
    done = subprocess.run([sys.executable, "tools/gen_proto.py", "--check"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.unit
def test_tables_of_legality__belong_to_the_declarations() -> None:
    command = [sys.executable, "-m", "tools.make_legality", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.chain
def test_exported_abi__belongs_to_the_contracts() -> None:
    done = subprocess.run(
        [sys.executable, "tools/export_abi.py", "--check"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.unit
def test_generated_protobuf__runs_under_protobuf_6_and_7() -> None:
    text = (ROOT / "flb/v1/aggregator_service_pb2.py").read_text()
    assert re.search(r"# Protobuf Python Version: 6\.", text), "the generator must write protobuf 6 code"


@pytest.mark.unit
def test_documents__point_at_what_exists() -> None:
    broken = []
    for path in tracked("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            if not (path.parent / target).exists():
                broken.append(f"{shown(path)}: {target}")
    readme = (ROOT / "README.md").read_text()
    six = re.findall(r"`((?:flb|flb_node|flb_aggregator|contracts)/[\w/]+\.(?:py|sol))`", readme)
    broken += [name for name in six if not (ROOT / name).exists()]
    assert broken == [] and len(six) >= 6


@pytest.mark.unit
def test_files__speak_of_the_project_alone() -> None:
    foreign = re.compile(r"(?<![\w.])/(work|farm|root)/|issue #\d|\.\./shared")
    found = []
    for path in tracked():
        if path.suffix in {".png", ".json"} or path == Path(__file__):
            continue
        found += [f"{shown(path)}: {m.group()}" for m in foreign.finditer(path.read_text(errors="replace"))]
    assert found == []
