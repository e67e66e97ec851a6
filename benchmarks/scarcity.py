"""Where does it pay? Segmentation after training on few annotated cells or slices, with and without synthetic data.

    python benchmarks/scarcity.py --output_dir DIR [--data_set BBBC039|BBBC050] [--amounts 10 30 100 300] [--budget 20]

For each amount the training sequence is thinned to so many annotated cells (BBBC039) or slices (BBBC050), everything
that `cascade fit` does is done with them, and Cellpose is trained on the annotated, on what was made of it, and on
both. "real" are the slices, or the crops of the annotated cells: frames in which all other cells are unlabelled teach
nothing. It goes on from the embedded model of the *other* data set, which knows no outline of this one; both textures
began as one diffusion model of crops of nuclei, though, among which were some of either data set. --budget: minutes of
training for each amount. Interrupted, the same command goes on. Prints one JSON object on its last line, and draws
`BBBC039.png`. To see that it works: --amounts 10 --budget 0.5 --num_images 4 --seeds 1 --steps 20.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from common import data_folder, machine
from matplotlib.figure import Figure

from cascade.commands.fit import fit
from cascade.commands.settings import FitSettings
from cascade.data.settings import ThinSettings
from cascade.data.thin import thin
from cascade.evaluation.experiment import run_trainings
from cascade.evaluation.mixtures import joined
from cascade.evaluation.segmenters import NARROW, NARROW_3D, cellpose3
from cascade.evaluation.sources import Source

SETS = {
    "BBBC039": dict(unit="cells", train=["01"], test=("gt", ("02",)), base="nuclei3d", spacing_um=(0.65, 0.65)),
    "BBBC050": dict(
        unit="frames", train=[f"{n:02d}" for n in range(1, 10)], test=("st", ("10", "11")), base="nuclei2d",
        pixel_size_um=0.4,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--data_set", choices=SETS, default="BBBC039")
    parser.add_argument("--amounts", type=int, nargs="+", help="default 10 30 100 300 cells, or 3 10 30 slices")
    parser.add_argument("--budget", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num_images", type=int, help="default 200 planes or 50 stacks")
    parser.add_argument("--steps", type=int, help="of each training of Cellpose; default as in the evaluation")
    options = parser.parse_args()
    planar = SETS[options.data_set]["unit"] == "cells"
    amounts = options.amounts or ([10, 30, 100, 300] if planar else [3, 10, 30])
    settings = NARROW if planar else NARROW_3D
    settings = replace(settings, steps=options.steps or settings.steps)
    report: dict = {"data_set": options.data_set, "unit": SETS[options.data_set]["unit"], "segmenter": repr(settings)}
    report |= {"amounts": {}, "machine": machine()}
    for amount in amounts:
        folder = options.output_dir / f"{options.data_set}_{amount}"
        made(folder, options.data_set, amount, options.budget, options.num_images)
        report["amounts"][amount] = scores(folder, options.data_set, settings, options.seeds)
        (options.output_dir / f"{options.data_set}.json").write_text(json.dumps(report, indent=1))
        draw(report, options.output_dir / f"{options.data_set}.png")
    print(json.dumps(report))


def made(folder: Path, data_set: str, amount: int, budget: float, num_images: int | None) -> None:
    """The data set thinned to an amount of annotation, and all of `cascade fit` but the evaluation."""
    known, thinned = SETS[data_set], folder / "annotated"
    planar = known["unit"] == "cells"
    if not thinned.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        kept = {known["unit"]: amount}
        thin(ThinSettings(data_folder() / data_set, output_dir=thinned, sequences=known["train"], **kept))
    plan = FitSettings(
        thinned,
        output_dir=folder,
        crop_size=64,
        pixel_size_um=known.get("pixel_size_um"),
        spacing_um=known.get("spacing_um", ()),
        sparse=planar,
        budget=budget,
        base_model=known["base"],
        num_images=num_images or (200 if planar else 50),
        bank=min(500 if planar else 150, 10 * (num_images or 50)),
    )
    fit(plan)


def scores(folder: Path, data_set: str, settings, seeds: int) -> dict:
    """Of Cellpose trained on what is annotated, on what was made of it, and on both."""
    known = SETS[data_set]
    truth, sequences = known["test"]
    spacing = known.get("spacing_um", ())
    test = Source(data_folder() / data_set, truth, sequences, spacing_um=spacing).load()
    real = Source(folder / ("crops" if known["unit"] == "cells" else "annotated")).load()
    synthetic = Source(folder / "synthetic").load()
    conditions = {"real": real, "synthetic": synthetic, "both": joined(real, synthetic)}
    found = run_trainings(
        conditions, test, lambda data, seed: cellpose3(data, settings, seed)[0], seeds, folder, what=repr(settings)
    )
    return {name: {key: score[key] for key in ("seg", "ap_0.5", "ap_0.8")} for name, score in found.items()}


def draw(report: dict, path: Path) -> None:
    """SEG over the amount of annotation."""
    figure = Figure(figsize=(5, 3.4), layout="tight")
    axes = figure.subplots()
    for name in ("real", "synthetic", "both"):
        means, spread = ([found[name]["seg"][key] for found in report["amounts"].values()] for key in ("mean", "std"))
        axes.errorbar(list(report["amounts"]), means, spread, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel=f"annotated {report['unit']}", ylabel="SEG", title=report["data_set"])
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
