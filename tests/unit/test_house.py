"""The house rules a machine can see."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api import FactBase
from pyinfra.api.arguments import all_argument_meta

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted(
    path
    for folder in ("ppn", "lab", "facts", "operations", "deploys", "bench", "iso")
    for path in (CHECKOUT / folder).rglob("*.py")
)
PYINFRA_SIDE = {"pyinfra", "facts", "operations", "deploys", "lab", "iso", "bench", "inventories"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 50


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file as Python reads it; four tests look at each."""
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement below a node, at any depth; expressions hold none and are passed over."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from statements(child)


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """The top-level packages a file imports."""
    found: set[str] = set()
    for node in statements(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return frozenset(found)


def name_of(path: Path) -> str:
    """A file's path in the checkout."""
    return path.relative_to(CHECKOUT).as_posix()


def test_ppn_never_imports_the_pyinfra_side() -> None:
    found = {name_of(path): PYINFRA_SIDE & imported(path) for path in SOURCES}
    assert {name: wrong for name, wrong in found.items() if name.startswith("ppn/") and wrong} == {}


def test_only_two_sources_import_libvirt() -> None:
    importers = {name_of(path) for path in SOURCES if "libvirt" in imported(path)}
    assert importers == {"ppn/host/backend.py", "ppn/host/domain_facts.py"}


@pytest.mark.parametrize(
    ("program", "unused"),
    [
        pytest.param("deploys.pool, ppn.host.policy", "libvirt", id="a declaration is judged"),
        pytest.param("ppn.cli.host, ppn.host.apply", "cryptography", id="a VM is applied"),
        pytest.param("ppn.cli.vm, ppn.fleet.client", "cryptography", id="a controller is asked"),
        pytest.param("ppn.cli.vm, ppn.fleet.client", "ppn.fleet.registry", id="and asked only"),
        pytest.param("ppn.cli.vm, ppn.fleet.client", "click", id="httpx has no command line"),
        pytest.param("ppn.host.agent.app, ppn.fleet.app, ppn.tenant.app", "rich", id="a service"),
    ],
)
def test_nobody_waits_for_what_is_not_used(program: str, unused: str) -> None:
    """Importing is most of what a short command does; and not every machine has libvirt."""
    code = f"import sys, {program}; sys.exit('{unused}' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, timeout=60, check=False)
    assert done.returncode == 0


def test_no_package_is_asked_for_plugins_of_pydantic() -> None:
    code = (
        "import sys, ppn.host.model, pydantic.plugin._loader as plugins;"
        "sys.exit(plugins._plugins is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, timeout=60, check=False)
    assert done.returncode == 0


def test_one_source_imports_structlog() -> None:
    assert {name_of(path) for path in SOURCES if "structlog" in imported(path)} == {"ppn/log.py"}


def test_files_and_functions_are_small() -> None:
    lines = {name_of(path): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    lengths = {
        f"{name_of(path)}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in SOURCES
        for node in statements(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > MOST_LINES_OF_A_FUNCTION} == {}


def test_every_public_thing_says_what_it_is() -> None:
    trees = {name_of(path): tree_of(path) for path in SOURCES}
    public = {
        f"{name}: {node.name}": node
        for name, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    silent = {name for name, node in {**trees, **public}.items() if not ast.get_docstring(node)}
    assert silent == set()


def modules(package: str) -> Iterator[str]:
    """The modules of a package that can be imported."""
    for module in pkgutil.iter_modules([str(CHECKOUT / package)]):
        if module.name != "install_files":  # a program that runs on nodes
            yield f"{package}.{module.name}"


@pytest.mark.parametrize("module", list(modules("operations")))
def test_operations_are_documented_and_take_no_reserved_argument(module: str) -> None:
    """pyinfra swallows a parameter called `name` and every global argument."""
    for name, value in vars(importlib.import_module(module)).items():
        if not hasattr(value, "_inner") or value.__module__ != module:
            continue
        parameters = set(inspect.signature(value._inner).parameters)
        assert not parameters & {"name", *all_argument_meta}, name
        assert "**Example:**" in (value.__doc__ or ""), f"{name} has no example"


@pytest.mark.parametrize("module", list(modules("facts")))
def test_an_unread_fact_is_unknown(module: str) -> None:
    """pyinfra goes on with the default of a fact it could not read; ours all say `None`."""
    for name, value in vars(importlib.import_module(module)).items():
        if inspect.isclass(value) and issubclass(value, FactBase) and value.__module__ == module:
            assert value.default() is None, name
            assert "Example:" in (value.__doc__ or ""), f"{name} has no example"


def test_every_subprocess_goes_through_one_function() -> None:
    starters = {
        path.relative_to(CHECKOUT).as_posix() for path in SOURCES if "subprocess" in imported(path)
    }
    # One for programs that end, one per area for those that stay; one runs alone on nodes.
    assert starters <= {
        "ppn/run.py",
        "ppn/host/kvm.py",
        "lab/process.py",
        "operations/install_files.py",
    }


@pytest.mark.parametrize("tree", ["iso/node", "lab/debian-guest"])
def test_units_of_the_images_are_turned_on_by_links(tree: str) -> None:
    """A plain file in a `.wants` folder is ignored, and the machine comes up without a network."""
    entries = sorted((CHECKOUT / tree).rglob("*.wants/*"))
    assert entries
    assert [entry for entry in entries if not entry.is_symlink()] == []
