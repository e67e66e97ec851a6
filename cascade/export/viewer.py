"""Casting rays on meshes with open3d, which is imported only here."""

import contextlib
import ctypes
import importlib.util
import types
from typing import Any

import numpy as np
import trimesh

from cascade.extras import install


def open3d() -> types.ModuleType:
    """The open3d module; raises ImportError naming the extra, or the system package, that is missing."""
    if importlib.util.find_spec("open3d") is None:
        raise ImportError(f"meshes are looked at with open3d, which is not installed: {install('viewer')}")
    with contextlib.suppress(ImportError, OSError):  # where neither is there, open3d says so itself
        import libusb_package  # its copy of libusb-1.0 serves where the system has none

        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    try:
        import open3d
    except (ImportError, OSError) as error:
        packages = {
            "libusb": "libusb-1.0-0",
            "libGL": "libgl1",
            "libEGL": "libegl1",
            "libX11": "libx11-6",
            "gomp": "libgomp1",
        }
        wanted = next((package for name, package in packages.items() if name in str(error)), "")
        raise ImportError(f"open3d needs a system library ({error}); install {wanted or 'it'}") from error
    return open3d


def scene_of(mesh: trimesh.Trimesh) -> Any:
    """An open3d RaycastingScene of a mesh, for ray casting, occupancy and distances; (x, y, z) like the mesh."""
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(np.asarray(mesh.vertices, np.float32)),
        o3d.core.Tensor(np.asarray(mesh.faces, np.uint32)),
    )
    return scene
