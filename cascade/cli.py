"""The command line: demo, prepare, train, generate, assemble, doctor."""

import argparse
import logging
import sys
from pathlib import Path

STAGES = {
    "mask": "train_mask_ddpm",
    "multiview": "train_multiview",
    "ldm": "train_ldm",
    "controlnet": "train_controlnet",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code. Mistakes in the input end with one line and code 1."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"] and len(argv) > 1 and argv[1] in STAGES:
        return _train(argv[1], argv[2:])
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "datasets", "diffusers", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        options.run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"cascade {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cascade", description="Densely annotated microscopy data sets from sparse annotations."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="generate a 2D and a 3D data set from the embedded weights")
    demo.add_argument("--output_dir", type=Path, default=Path("demo"))
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)

    prepare = commands.add_parser("prepare", help="cut a data set into single-cell crops, and fit its statistics")
    prepare.add_argument("source", type=Path, help="Cell Tracking Challenge folder, or folder of x.tif, x_masks.tif")
    prepare.add_argument("--output_dir", type=Path, required=True)
    prepare.add_argument("--truth", choices=("gt", "st"), default="gt", help="gold or silver truth")
    prepare.add_argument("--sequences", nargs="+", help="e.g. 01 02; default all")
    prepare.add_argument("--crop_size", type=int, default=128, help="pixels")
    prepare.add_argument("--pixel_size_um", type=float, help="resample to it; default as it is")
    prepare.add_argument("--spacing_um", type=float, nargs="+", help="voxel size z y x or y x; default as stored")
    prepare.add_argument("--slices_per_cell", type=int, default=3, help="where whole stacks are annotated")
    prepare.add_argument("--licence", default="not stated", help="of the images, and whom to cite")
    prepare.add_argument("--seed", type=int, default=0)
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser("train", help="train a stage; the same as training/train_*.py")
    train.add_argument("stage", choices=STAGES)
    train.set_defaults(run=lambda options: None)

    generate = commands.add_parser("generate", help="make an annotated data set with a trained model")
    generate.add_argument("--model", required=True, help="folder, Hub id, or nuclei2d / nuclei3d")
    generate.add_argument("--output_dir", type=Path, required=True)
    generate.add_argument("--num_images", type=int, default=1)
    generate.add_argument("--canvas_size", type=int, nargs="+", help="voxels y x or z y x; default as the real images")
    generate.add_argument("--cells_per_image", type=int)
    generate.add_argument("--clustering_probability", type=float)
    generate.add_argument("--rho", type=float, default=0.7, help="texture shared between a cell's slices")
    generate.add_argument("--num_inference_steps", type=int, default=20)
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--format", choices=("ctc",), default="ctc")
    generate.add_argument("--meshes", action="store_true", help="also write 3D cells as GLB")
    generate.add_argument("--device", help="default cuda if there is one, else cpu")
    generate.set_defaults(run=_generate)

    assemble = commands.add_parser("assemble", help="put trained stages together: one folder to share or to push")
    assemble.add_argument("model", help="folder with mask/, texture/ and, in 3D, multiview/")
    assemble.add_argument("--output_dir", type=Path, required=True)
    assemble.add_argument("--half", action="store_true", help="half-precision weights: half the size")
    assemble.add_argument("--push_to_hub", metavar="REPO_ID", help="upload it, too")
    assemble.set_defaults(run=_assemble)

    doctor = commands.add_parser("doctor", help="say what this installation can do, and what is missing for the rest")
    doctor.set_defaults(run=_doctor)
    return parser


def _prepare(options) -> None:
    from cascade.data.prepare import prepare

    arguments = {key: value for key, value in vars(options).items() if key not in ("command", "run")}
    folder = prepare(**arguments)
    print(f"{folder}: look at preview.png; next: accelerate launch training/train_mask_ddpm.py --data {folder} …")


def _train(stage: str, argv: list[str]) -> int:
    import importlib

    from cascade.training.settings import run

    run(importlib.import_module(f"cascade.training.{STAGES[stage]}").main, argv)
    return 0


def _generate(options) -> None:
    from cascade import __version__
    from cascade.assets import NAMES, embedded
    from cascade.export.save import save_samples
    from cascade.pipelines.cascade import CascadePipeline

    source = embedded(options.model) if options.model in NAMES else options.model
    pipeline = CascadePipeline.from_pretrained(source).to(options.device or _best_device())
    for stage in (pipeline.mask, pipeline.multiview, pipeline.texture):
        if stage is not None:
            stage.set_progress_bar_config(disable=True)
    settings = {
        "canvas_size": options.canvas_size,
        "cells_per_image": options.cells_per_image,
        "clustering_probability": options.clustering_probability,
        "rho": options.rho,
        "num_inference_steps": options.num_inference_steps,
    }
    samples = pipeline.generate(options.seed, range(options.num_images), **settings)
    about = {
        "made_by": f"cascade-microscopy {__version__}",
        "model": options.model,
        "seed": options.seed,
        **settings,
    }
    folder = save_samples(samples, options.output_dir, options.format, options.meshes, about)
    print(f"{options.num_images} images in {folder} (Cell Tracking Challenge layout); look at {folder / 'preview.png'}")


def _assemble(options) -> None:
    import shutil

    import torch

    from cascade.export.preview import sample_preview
    from cascade.pipelines.cascade import CascadePipeline

    output = options.output_dir
    if output.exists() and any(output.iterdir()) and not (output / "model_index.json").is_file():
        raise FileExistsError(f"{output}: holds something else than a model; name another folder")
    pipeline = CascadePipeline.from_pretrained(options.model)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sample_preview(pipeline(generator=torch.Generator().manual_seed(0)).samples[0], partial / "preview.png")
    if options.half:
        pipeline.to(torch.float16)
    pipeline.save_pretrained(partial)
    for stage in ("mask", "multiview", "texture"):
        card = Path(options.model, stage, "README.md")
        if card.is_file():
            shutil.copy(card, partial / stage)
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    print(f"{output}: look at preview.png and README.md; CascadePipeline.from_pretrained('{output}') loads it")
    if options.push_to_hub:
        print(pipeline.push_to_hub(options.push_to_hub))


def _demo(options) -> None:
    import time

    import torch

    from cascade import __version__
    from cascade.assets import embedded
    from cascade.export.preview import sample_preview
    from cascade.export.save import save_samples
    from cascade.pipelines.cascade import CascadePipeline

    made = []
    for name, kind, canvas, cells in (
        ("nuclei2d", "2d", (512, 512), None),
        ("nuclei3d", "3d", (32, 160, 160), 14),
    ):
        start = time.perf_counter()
        pipeline = CascadePipeline.from_pretrained(embedded(name)).to(_best_device())
        for stage in (pipeline.mask, pipeline.multiview, pipeline.texture):
            if stage is not None:
                stage.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(options.seed)
        output = pipeline(canvas_size=canvas, cells_per_image=cells, generator=generator)
        about = {"made_by": f"cascade-microscopy {__version__}", "model": name, "seed": options.seed}
        folder = save_samples(output.samples, options.output_dir / kind, about=about)
        preview = options.output_dir / f"preview_{kind}.png"
        sample_preview(output.samples[0], preview)
        shape, count = "×".join(map(str, output.images[0].shape)), len(output.samples[0].cells)
        seconds = time.perf_counter() - start
        made.append(f"  {preview}: {shape} voxels, {count} annotated nuclei, {seconds:.0f} s; data set in {folder}")
    print("Made from the embedded weights:\n" + "\n".join(made))
    print("Next: cascade prepare YOUR_DATA --output_dir crops   (see README.md)")


def _doctor(options) -> None:
    from importlib import metadata, util

    print(f"cascade-microscopy {metadata.version('cascade-microscopy')}")
    for name in (
        "torch",
        "diffusers",
        "transformers",
        "accelerate",
        "datasets",
        "scikit-image",
        "trimesh",
        "open3d",
    ):
        print(f"  {name} {metadata.version(name)}")
    if util.find_spec("torchvision"):
        print("  torchvision is installed: if diffusers fails to import, 'pip uninstall torchvision'")
    import torch

    print(f"  device: {_best_device()}, {torch.get_num_threads()} threads")
    from cascade.assets import NAMES, embedded

    for name in NAMES:
        try:
            print(f"  {name}: {embedded(name)}")
        except FileNotFoundError as error:
            print(f"  {name}: {error}")
    from cascade.export.viewer import open3d

    try:
        open3d()
        print("  open3d: works")
    except ImportError as error:
        print(f"  open3d: {error}")


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
