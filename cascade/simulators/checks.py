"""What every simulator refuses, in the same words."""

from cascade.simulators.crowd import Crowd


def check_canvas(canvas_size: tuple[int, ...], spacing_um: tuple[float, ...], ndim: int | None = None) -> None:
    """Raises ValueError unless a canvas has two or three sides, or `ndim` of them, and as many voxel sizes."""
    sizes = " ".join(map(str, canvas_size))
    if len(canvas_size) not in ((2, 3) if ndim is None else (ndim,)) or min(canvas_size, default=0) < 1:
        wanted = {None: "y x or z y x", 2: "y x", 3: "z y x"}[ndim]
        raise ValueError(f"canvas_size must be {wanted}, whole numbers from 1, got {sizes}")
    if len(spacing_um) != len(canvas_size) or not all(0 < s < float("inf") for s in spacing_um):
        lengths = " ".join(f"{s:g}" for s in spacing_um)
        raise ValueError(
            f"spacing_um must be {len(canvas_size)} lengths above 0 in µm for a canvas of {sizes}, got {lengths}"
        )


def check_share(settings: object, *names: str, least: float = 0.0) -> None:
    """Raises ValueError for a named field that is not between `least` and 1."""
    for name in names:
        if not least <= (value := getattr(settings, name)) <= 1:
            raise ValueError(f"{name} must be between {least:g} and 1, got {value:g}")


def check_all_placed(crowd: Crowd, asked: int, least: float) -> None:
    """Count the cells that did not fit. Raises ValueError if fewer fit than `least`, rounded."""
    placed = len(crowd.cells)
    if placed < round(least):
        size = "×".join(map(str, crowd.canvas_size))
        raise ValueError(
            f"num_cells asks for {asked} cells, and {placed} of them fit on a canvas of {size}: ask for fewer, give "
            "smaller ones, or a larger `canvas_size`"
        )
    crowd.count("not_placed", asked - placed)
