"""The options of every command, and the numbers that they take."""

import argparse
from functools import partial
from pathlib import Path

STAGES = {
    "mask": "train_mask_ddpm",
    "multiview": "train_multiview",
    "ldm": "train_ldm",
    "controlnet": "train_controlnet",
}
FORMATS = ("ctc", "cellpose", "stardist", "nnunet", "ome-tiff", "ome-zarr", "coco", "huggingface")


def parser() -> argparse.ArgumentParser:
    """Of the whole command line; `command` says which one was given."""
    whole = argparse.ArgumentParser(
        prog="cascade", description="Densely annotated microscopy data sets from sparse annotations."
    )
    group = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = partial(group.add_parser, allow_abbrev=False)

    demo = command("demo", help="generate a 2D and a 3D data set from the embedded weights")
    demo.add_argument("--output_dir", type=Path, default=Path("demo"))
    demo.add_argument("--seed", type=_from_zero, default=0)

    prepare = command("prepare", help="cut a data set into single-cell crops, and fit its statistics")
    prepare.add_argument("source", type=Path, help="Cell Tracking Challenge folder, or folder of x.tif, x_masks.tif")
    prepare.add_argument("--output_dir", type=Path, required=True)
    prepare.add_argument("--truth", choices=("gt", "st"), default="gt", help="gold or silver truth")
    prepare.add_argument("--sequences", nargs="+", help="e.g. 01 02; default all")
    prepare.add_argument("--crop_size", type=_count, default=64, help="pixels, a multiple of 16; default 64")
    prepare.add_argument("--pixel_size_um", type=float, help="resample to it; default as it is")
    prepare.add_argument("--spacing_um", type=float, nargs="+", help="voxel size z y x or y x; default as stored")
    prepare.add_argument("--slices_per_cell", type=_count, default=3, help="where whole stacks are annotated")
    prepare.add_argument("--sparse", action="store_true", help="planes show cells that nobody annotated")
    prepare.add_argument("--licence", default="not stated", help="of the images, and whom to cite")
    prepare.add_argument("--seed", type=_from_zero, default=0)

    thin = command("thin", help="copy a data set with fewer annotations, to see how few are enough")
    thin.add_argument("source", type=Path, help="as for prepare")
    thin.add_argument("--output_dir", type=Path, required=True)
    thin.add_argument("--cells", type=_count, help="keep the annotation of so many cells (then: prepare --sparse)")
    thin.add_argument("--frames", type=_count, help="or of so many frames or slices")
    thin.add_argument("--truth", choices=("gt", "st"), default="gt")
    thin.add_argument("--sequences", nargs="+", help="default all")
    thin.add_argument("--seed", type=_from_zero, default=0)

    train = command("train", help="train a stage; the same as training/train_*.py")
    train.add_argument("stage", choices=STAGES)

    fit = command(
        "fit",
        help="everything at once: prepare, train, assemble, generate and, with --test, evaluate",
        description="From annotated images to an annotated data set. Interrupted, the same command goes on.",
    )
    fit.add_argument("source", type=Path, help="as for prepare")
    fit.add_argument("--output_dir", type=Path, required=True)
    fit.add_argument("--truth", choices=("gt", "st"), default="gt")
    fit.add_argument("--sequences", nargs="+", default=[])
    fit.add_argument("--crop_size", type=_count, default=64, help="pixels; the base model's, 64 for the embedded ones")
    fit.add_argument("--pixel_size_um", type=float)
    fit.add_argument("--spacing_um", type=float, nargs="+", default=[], help="voxel size z y x or y x")
    fit.add_argument("--sparse", action="store_true", help="planes show cells that nobody annotated")
    fit.add_argument("--licence", default="not stated", help="of the images, and whom to cite")
    fit.add_argument(
        "--budget", type=float, default=60, metavar="MINUTES", help="for the two trainings; the rest comes on top"
    )
    fit.add_argument(
        "--base_model", help="what is finetuned: a folder, a Hub id; default nuclei2d for planes, nuclei3d for stacks"
    )
    fit.add_argument("--num_images", type=_count, default=100)
    fit.add_argument("--bank", type=_count, metavar="CELLS", help="make so many cells once and use them in all images")
    fit.add_argument("--seed", type=_from_zero, default=0)
    fit.add_argument("--test", type=Path, help="annotated images to evaluate on; Cellpose (extra cellpose) is trained")
    fit.add_argument("--test_truth", choices=("gt", "st"), default="gt")
    fit.add_argument("--test_sequences", nargs="+", default=[])
    fit.add_argument(
        "--skip", nargs="+", default=[], metavar="STEP", help="prepare mask texture assemble generate evaluate"
    )

    generate = command(
        "generate",
        help="make an annotated data set with a trained model",
        description="Make an annotated data set. Interrupted, the same command goes on where it was; several processes "
        "(torchrun --nproc_per_node 4 -m cascade generate …, or --slurm) share the work and give the same bytes.",
    )
    generate.add_argument("--config", metavar="FILE", help="YAML with any of the options below, which win over it")
    generate.add_argument("--model", default="nuclei2d", help="folder, Hub id, or nuclei2d / nuclei3d")
    generate.add_argument("--output_dir", type=Path, required=True)
    generate.add_argument("--num_images", type=_count, default=1)
    generate.add_argument(
        "--canvas_size", type=_count, nargs="+", help="voxels y x or z y x; default as the real images"
    )
    generate.add_argument("--cells_per_image", type=_count)
    generate.add_argument("--clustering_probability", type=float)
    generate.add_argument(
        "--region", type=Path, metavar="TIFF", help="cells lie where this image, as large as the canvas, is not zero"
    )
    generate.add_argument("--max_overlap", type=float, default=0.0, help="share of a cell that may lie on others")
    generate.add_argument("--rho", type=float, default=0.7, help="texture shared between a cell's slices")
    generate.add_argument(
        "--correlation_length_um", type=float, help="instead of --rho: texture that falls off along z with this length"
    )
    generate.add_argument("--num_inference_steps", type=_count, default=20)
    generate.add_argument(
        "--min_alignment", type=_share, default=0.6, help="cells whose texture shows their mask less (IoU) are redrawn"
    )
    generate.add_argument(
        "--reading",
        choices=("silhouette", "section"),
        default="silhouette",
        help="in 3D: outlines are seen along z, or cut at a random height, so that most cells are larger",
    )
    generate.add_argument(
        "--shapes",
        choices=("multiview", "harmonics", "ellipsoids"),
        default="multiview",
        help="in 3D: solids of imagined views, or for comparison random harmonic ones or ellipsoids",
    )
    generate.add_argument("--seed", type=_from_zero, default=0)
    generate.add_argument("--format", nargs="+", default=["ctc"], help="|".join(FORMATS) + "; several may be given")
    generate.add_argument("--meshes", action="store_true", help="also write 3D cells as GLB")
    generate.add_argument("--shard_size", type=_count, default=4, help="images between two points to resume from")
    generate.add_argument(
        "--bank",
        type=_count,
        metavar="CELLS",
        help="for large data sets: make so many cells once, and use them in all images, turned and as bright as each "
        "image asks for; default new cells for every image",
    )
    generate.add_argument(
        "--tiles", action="store_true", help="compose canvases larger than memory tile by tile (OME-Zarr; needs --bank)"
    )
    generate.add_argument("--only", type=_from_zero, metavar="SAMPLE", help="make this sample again and compare it")
    generate.add_argument(
        "--dry_run", action="store_true", help="make one image, and print time, memory and disk of all"
    )
    generate.add_argument("--slurm", metavar="PARTITION", help="submit as a Slurm array (needs submitit)")
    generate.add_argument("--slurm_tasks", type=_count, default=8)
    generate.add_argument("--slurm_gpus", type=_from_zero, default=0, metavar="N", help="GPUs that each task asks for")
    generate.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the networks; half of it is faster on a GPU, and bfloat16 on newer CPUs",
    )
    generate.add_argument(
        "--compile", action="store_true", help="compile the texture networks first: pays on thousands of slices"
    )
    generate.add_argument("--device", help="default cuda if there is one, else cpu")

    validate = command("validate", help="say whether a data set, generated or real, is sound")
    validate.add_argument("folder", type=Path)
    validate.add_argument("--truth", choices=("gt", "st"), default="gt")
    validate.add_argument("--sequences", nargs="+", help="default all")

    evaluate = command(
        "evaluate",
        help="does synthetic data improve segmentation? train on real, synthetic and both; report",
        description="Train Cellpose on real, synthetic and both, test on real images, and write report.html. What a "
        'network reaches that saw none of them, the row "none", is there with --generalist or --pretrained only. '
        "Interrupted, the same command goes on where it was; several processes (torchrun --nproc_per_node 2 -m "
        "cascade evaluate …) share the trainings.",
    )
    for name, text in (("real_train", "real images to train on"), ("real_test", "real images to test on")):
        evaluate.add_argument(f"--{name}", type=Path, required=True, help=text)
        evaluate.add_argument(f"--{name}_sequences", nargs="+", default=[], metavar="NN", help="default all")
        evaluate.add_argument(f"--{name}_truth", choices=("gt", "st"), default="gt")
    evaluate.add_argument(
        "--spacing_um", type=float, nargs="+", default=[], help="of real images, z y x or y x; default as stored"
    )
    evaluate.add_argument(
        "--synthetic", nargs="+", required=True, metavar="[NAME=]FOLDER", help="the first is judged, others are rows"
    )
    evaluate.add_argument(
        "--sparse",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="a second setting with few annotations: real=…, synthetic=…, others; prepared folders give their crops",
    )
    evaluate.add_argument("--generalist", type=Path, help='adds "none", trained on annotated images of another kind')
    evaluate.add_argument("--pretrained", help="or adds it as a Cellpose model of this name, such as cyto3, cpsam_v2")
    evaluate.add_argument("--frames", type=_count, help="use at most so many images of each set")
    evaluate.add_argument("--seeds", type=_count, default=3, help="trainings of each kind")
    evaluate.add_argument(
        "--protocol",
        choices=("narrow", "full", "cellpose4"),
        default="narrow",
        help="Cellpose 3.1 from scratch for two cores, or as it is for a GPU; or Cellpose 4 finetuned",
    )
    evaluate.add_argument("--steps", type=_count, help="of each training; default as the protocol says")
    evaluate.add_argument(
        "--cellprob_threshold", type=float, default=0.0, help="of Cellpose's segmentations: below 0 cells are larger"
    )
    evaluate.add_argument(
        "--ratios", type=_percent, nargs="+", default=[], metavar="PERCENT", help="also train on mixtures, of one size"
    )
    evaluate.add_argument("--title", default="Does synthetic data improve segmentation?")
    evaluate.add_argument("--output_dir", type=Path, required=True)

    assemble = command("assemble", help="put trained stages together: one folder to share or to push")
    assemble.add_argument("model", help="folder with mask/, texture/ and, in 3D, multiview/")
    assemble.add_argument("--output_dir", type=Path, required=True)
    assemble.add_argument("--half", action="store_true", help="half-precision weights: half the size")
    assemble.add_argument("--push_to_hub", metavar="REPO_ID", help="upload it, too")

    command("doctor", help="say what this installation can do, and what is missing for the rest")
    return whole


def _count(text: str) -> int:
    """A whole number above 0."""
    return _whole_number(text, 1)


def _from_zero(text: str) -> int:
    """A whole number from 0."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from {least}")
    return int(text)


def _share(text: str) -> float:
    """A number between 0 and 1, both included."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number between 0 and 1")
    return number


def _percent(text: str) -> int:
    """A whole number between 0 and 100."""
    if _whole_number(text, 0) > 100:
        raise argparse.ArgumentTypeError(f"{text} is more than 100 percent")
    return int(text)
