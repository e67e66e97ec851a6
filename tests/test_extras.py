"""What only options need: nothing is imported before it is asked for, and what is missing is named with the mend."""

import ast
import subprocess
import sys
import tomllib

import pytest
from test_structure import ROOT, modules

from cascade import __version__
from cascade.commands.cli import main
from cascade.commands.doctor import doctor
from cascade.export import viewer
from cascade.extras import EXTRAS, install, needed
from cascade.training import start

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements):
    return {one.split("[")[0].split(">")[0].split("=")[0] for one in requirements}


def test_extras_are_those_of_the_package_and_none_of_its_core():
    assert EXTRAS.keys() <= PROJECT["optional-dependencies"].keys()
    for extra, module in EXTRAS.items():
        assert module in names(PROJECT["optional-dependencies"][extra])
    assert not {*EXTRAS.values()} & names(PROJECT["dependencies"])
    assert {"imagecodecs", "zarr"} <= names(PROJECT["dependencies"])


def test_no_file_imports_an_extra_as_it_is_imported():
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in found} & {*EXTRAS.values()}, path


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_is_named_with_its_command(extra, monkeypatch):
    monkeypatch.setitem(sys.modules, EXTRAS[extra], None)
    with pytest.raises(ImportError, match=r"this work: needs .*, which is not installed: pip install") as error:
        needed(extra, "this work")
    assert f"'cascade-microscopy[{extra}]'" in str(error.value)


def test_training_goes_without_a_tracker(monkeypatch):
    assert start._tracker("none") is None
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    assert start._tracker("auto") is None
    with pytest.raises(ValueError, match=r"report_to tensorboard needs the package: pip install 'cascade-micro.*none"):
        start._tracker("tensorboard")
    with pytest.raises(
        ImportError, match=r"open3d, which is not installed: pip install 'cascade-microscopy\[viewer\]'"
    ):
        viewer.open3d()


def test_the_version_is_said(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cascade-microscopy {__version__}\n"


def test_doctor_lists_every_extra(capsys, monkeypatch):
    monkeypatch.setattr("cascade.commands.doctor.util.find_spec", lambda name: None)
    doctor()
    said = capsys.readouterr().out
    assert all(f"missing (extra {extra}: " in said and install(extra) in said for extra in EXTRAS)
    assert "nuclei2d: " in said


def test_doctor_imports_nothing_heavy_but_torch():
    heavy = [*{"diffusers", "accelerate", "datasets", "scipy", "skimage", "trimesh", "zarr", *EXTRAS.values()}]
    code = "import sys; from cascade.commands.cli import main; main(['doctor']); "
    code += f"print([one for one in {heavy} if one in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
