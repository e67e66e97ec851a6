"""Where does it pay? Segmentation after training on few annotated cells or slices, with and without synthetic data.

    python benchmarks/scarcity.py --output_dir DIR [--data_set BBBC039|BBBC050] [--amounts 10 30 100 300] [--budget 30]

For each amount the training sequence is thinned to so many annotated cells (BBBC039) or slices (BBBC050), everything
that `cascade fit` does is done with them, and Cellpose is trained and tested. It goes on from the embedded model of the
*other* data set, which knows no outline of this one; both textures began as one diffusion model of crops of nuclei,
though, among which were some of either data set. --budget: minutes of training for each amount. Interrupted, the same
command goes on. Prints one JSON object on its last line, and draws `scarcity.png`.
"""

import argparse
import json
from pathlib import Path

from common import data_folder, machine
from matplotlib.figure import Figure

from cascade.data.thin import thin
from cascade.fit import Plan, fit

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
    parser.add_argument("--budget", type=float, default=30)
    parser.add_argument("--num_images", type=int, help="default 200 planes or 50 stacks")
    options = parser.parse_args()
    known, source = SETS[options.data_set], data_folder() / options.data_set
    planar = known["unit"] == "cells"
    amounts = options.amounts or ([10, 30, 100, 300] if planar else [3, 10, 30])
    report: dict = {"data_set": options.data_set, "unit": known["unit"], "amounts": amounts}
    for amount in amounts:
        folder = options.output_dir / f"{options.data_set}_{amount}"
        thinned = folder / "annotated"
        if not thinned.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            thin(source, thinned, sequences=known["train"], **{known["unit"]: amount})
        plan = Plan(
            source=thinned,
            output_dir=folder,
            crop_size=64,
            pixel_size_um=known.get("pixel_size_um"),
            spacing_um=known.get("spacing_um", ()),
            sparse=planar,
            budget_minutes=options.budget,
            base_model=known["base"],
            num_images=options.num_images or (200 if planar else 50),
            bank=500 if planar else 150,
            test=(source, *known["test"]),
        )
        fit(plan)
        seg = json.loads((folder / "report" / "report.json").read_text())["seg"]
        for name, scores in seg.items():
            report.setdefault(name, []).append(scores)
        report["segmenter"] = json.loads((folder / "report" / "report.json").read_text())["segmenter"]
    figure = Figure(figsize=(5, 3.4), layout="tight")
    axes = figure.subplots()
    for name in ("real", "synthetic", "both"):
        means, spread = ([score[key] for score in report[name]] for key in ("mean", "std"))
        axes.errorbar(amounts, means, spread, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel=f"annotated {known['unit']}", ylabel="SEG", title=options.data_set)
    axes.legend(frameon=False)
    figure.savefig(options.output_dir / "scarcity.png", dpi=120)
    report["machine"] = machine()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
