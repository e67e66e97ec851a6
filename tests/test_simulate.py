"""`cascade simulate`: the same bytes by one process or several, killed or not; labels alone in every format."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cascade.annotation import Annotation, Sample, overlapping
from cascade.commands.cli import main
from cascade.commands.simulate import labels_source
from cascade.data.label_sets import find_labels
from cascade.data.settings import ValidateSettings
from cascade.data.validate import validate
from cascade.export import ctc
from cascade.export.annotations import annotation_path, load_annotation
from cascade.export.formats import FORMATS
from cascade.export.save import save_samples
from cascade.generation import shards
from cascade.generation.simulation import SimulateSettings, simulated, simulation_job, unpainted
from cascade.simulators.labels import LabelsSettings, layered, over_time, repeated
from cascade.simulators.nuclei import NucleiSettings, nuclei

DEEP_WORDS = ["--canvas_size", "9", "64", "64", "--spacing_um", "2", "1", "1", "--num_cells", "2"]
SMALL = ["--canvas_size", "96", "96", "--num_cells", "4", "8"]
CELLS = NucleiSettings(canvas_size=(96, 96), num_cells=(4.0, 8.0))
DEEP = NucleiSettings(canvas_size=(20, 64, 64), spacing_um=(1.0, 0.5, 0.5), num_cells=(5.0,), radius_um=(3.0, 4.0))


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if ".cascade" not in path.parts}


def whole_set(folder: Path, formats: tuple[str, ...] = ("annotations",), own: NucleiSettings = CELLS) -> Path:
    settings = SimulateSettings(output_dir=folder, num_images=7, seed=3, format=formats, shard_size=2)  # type: ignore[arg-type]
    source = simulated(nuclei, own)
    job = simulation_job(settings, "nuclei", own, source)
    shards.start(folder, job)
    assert shards.run(folder, job, unpainted(source))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return whole_set(tmp_path_factory.mktemp("simulated") / "set")


@pytest.mark.parametrize("world", [1, 2, 4])
def test_several_processes_make_the_same_bytes(made, tmp_path, monkeypatch, world):
    words = ["simulate", "nuclei", *SMALL, "--num_images", "7", "--seed", "3", "--shard_size", "2"]
    monkeypatch.setenv("WORLD_SIZE", str(world))
    for rank in reversed(range(world)):
        monkeypatch.setenv("RANK", str(rank))
        assert main([*words, "--output_dir", str(tmp_path / "set")]) == 0
    assert files(tmp_path / "set") == files(made)


def test_a_killed_run_goes_on_to_the_same_bytes(made, tmp_path):
    settings = SimulateSettings(output_dir=tmp_path / "set", num_images=7, seed=3, shard_size=2)
    source = simulated(nuclei, CELLS)
    job = simulation_job(settings, "nuclei", CELLS, source)

    def killed(seed, index):
        if index == 3:
            raise KeyboardInterrupt
        return source(seed, index)

    shards.start(tmp_path / "set", job)
    with pytest.raises(KeyboardInterrupt):
        shards.run(tmp_path / "set", job, unpainted(killed))
    assert shards.progress(tmp_path / "set", job) == (1, 4)
    assert shards.run(tmp_path / "set", job, unpainted(source))
    assert files(tmp_path / "set") == files(made)


def test_one_annotation_is_made_again(made, capsys):
    words = ["simulate", "nuclei", *SMALL, "--num_images", "7", "--seed", "3", "--shard_size", "2", "--only", "4"]
    assert main([*words, "--output_dir", str(made)]) == 0
    assert "annotation 4 is the same, byte for byte" in capsys.readouterr().out


def test_nothing_of_an_annotation_is_lost(made):
    for number in range(7):
        annotation = load_annotation(annotation_path(made, number))
        fresh = simulated(nuclei, CELLS)(3, number)
        np.testing.assert_array_equal(annotation.labels, fresh.labels)
        assert [cell.row(2) for cell in annotation.cells] == [cell.row(2) for cell in fresh.cells]
    lines = [json.loads(line) for line in (made / "provenance.jsonl").read_text().splitlines()]
    assert [line["cells"] for line in lines] == [len(simulated(nuclei, CELLS)(3, n).cells) for n in range(7)]
    assert (made / "preview.png").is_file()


def test_what_did_not_fit_is_in_the_provenance(tmp_path):
    own = NucleiSettings(canvas_size=(40, 40), num_cells=(1.0, 40.0))
    folder = whole_set(tmp_path / "set", own=own)
    lines = [json.loads(line) for line in (folder / "provenance.jsonl").read_text().splitlines()]
    assert sum(line["counts"].get("not_placed", 0) for line in lines) > 0
    assert load_annotation(annotation_path(folder, 0)).counts == lines[0]["counts"]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_holds_labels_without_an_image(name, ndim, tmp_path):
    if (name, ndim) == ("coco", 3):
        pytest.skip("COCO has no z")
    annotation = nuclei(np.random.default_rng(0), CELLS if ndim == 2 else DEEP)
    folder = save_samples([Sample(None, annotation)], tmp_path / "set", (name,))
    assert not [path for path in folder.rglob("*") if path.parent.name in ("images", "imagesTr", "01")]
    if name in ("coco", "huggingface", "ome-zarr"):
        _check_the_others(name, folder, annotation)
    read, _ = next(iter(find_labels(folder))).annotation()
    np.testing.assert_array_equal(read.labels, annotation.labels)
    np.testing.assert_allclose(read.spacing_um, annotation.spacing_um, rtol=1e-5)
    found = validate(ValidateSettings(folder))
    assert (found.errors, found.warnings) == ([], [])
    assert (found.frames, found.num_cells) == (1, len(annotation.cells))


def _check_the_others(name: str, folder: Path, annotation: Annotation) -> None:
    if name == "coco":
        from pycocotools.coco import COCO

        coco = COCO(str(folder / "annotations.json"))
        masks = [coco.annToMask(one) for one in coco.loadAnns(coco.getAnnIds(0))]
        np.testing.assert_array_equal(sum(n * mask for n, mask in enumerate(masks, 1)), annotation.labels)
    elif name == "huggingface":
        import datasets

        (row,) = datasets.Dataset.from_parquet(str(folder / "data" / "train-000000.parquet"))
        assert "image" not in row
        if annotation.ndim == 2:
            np.testing.assert_array_equal(np.array(row["labels"]), annotation.labels)
    else:
        import zarr

        root = zarr.open_group(str(folder / "sample_000000.ome.zarr"), mode="r")
        np.testing.assert_array_equal(root["labels/cells/0"][:], annotation.labels)
        assert "multiscales" not in root.attrs["ome"]
        assert list(root.group_keys()) == ["labels"]


def test_a_simulated_set_is_a_source_of_labels_again(made, tmp_path):
    assert main(["simulate", "labels", "--source", str(made), "--output_dir", str(tmp_path / "copy")]) == 0
    for number in range(7):
        before, after = (load_annotation(annotation_path(folder, number)) for folder in (made, tmp_path / "copy"))
        np.testing.assert_array_equal(before.labels, after.labels)
        assert [cell.row(2) for cell in before.cells] == [cell.row(2) for cell in after.cells]


def test_a_slice_is_repeated(tmp_path):
    """Of a stack of which one slice is annotated, in the stack's own spacing."""
    plane = np.zeros((32, 40), np.uint16)
    plane[4:12, 5:15], plane[20:28, 20:30] = 3, 9
    (tmp_path / "01").mkdir()
    (tmp_path / "01_GT" / "SEG").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "01" / "t000.tif", np.zeros((5, 32, 40), np.uint16))
    tifffile.imwrite(tmp_path / "01_GT" / "SEG" / "man_seg_000_002.tif", plane)
    (tmp_path / "dataset.json").write_text('{"spacing_um": [2.0, 0.5, 0.5]}')
    source, count = labels_source(LabelsSettings(source=tmp_path, reading="slice"), find_labels(tmp_path))
    annotation = source(0, 0)
    assert count == 1
    np.testing.assert_array_equal(annotation.labels, np.stack([plane] * 8))
    assert annotation.spacing_um == (2.0, 0.5, 0.5)
    assert [cell.label for cell in annotation.cells] == [3, 9]
    with pytest.raises(ValueError, match="labels of one slice of a stack"):
        labels_source(LabelsSettings(source=tmp_path), find_labels(tmp_path))[0](0, 0)


def frames(step: int) -> list[Annotation]:
    found = []
    for time in range(4):
        plane = np.zeros((40, 60), np.uint16)
        plane[10:20, 5 + step * time : 15 + step * time], plane[30:35, 30:40] = 2, 5
        found.append(Annotation.of_labels(plane, (0.5, 0.5), time=time))
    return found


def test_a_sequence_is_a_volume():
    annotation = over_time(frames(3), 1.5)
    assert annotation.labels.shape == (4, 40, 60)
    assert annotation.spacing_um == (1.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="ids in several pieces: 2; give every piece its own id"):
        over_time(frames(12), 1.5)
    with pytest.raises(ValueError, match="equally large"):
        over_time([*frames(1), Annotation.of_labels(np.zeros((8, 8), np.uint16), (0.5, 0.5))], 1.5)


def test_cells_that_overlap_are_kept_whole(tmp_path):
    """Two discs in two planes, a small one within the first, a bar across both: their whole masks come back."""
    y, x = np.mgrid[:60, :80]
    big, other = (y - 30) ** 2 + (x - 25) ** 2 < 400, (y - 30) ** 2 + (x - 50) ** 2 < 324
    small, bar = (y - 30) ** 2 + (x - 20) ** 2 < 25, (abs(y - 40) < 3) & (x > 5) & (x < 75)
    planes = np.stack([big, other, small, bar]).astype(np.uint16)
    annotation = layered(planes, (0.5, 0.5))
    assert annotation.split_ids() == []
    assert len(annotation.cells) == 4
    assert annotation.counts == {"cut_by_others": 2}  # the bar and the discs cross, whoever lies on top
    np.testing.assert_array_equal(overlapping(annotation), planes.sum(0))
    assert not layered(planes[:3], (0.5, 0.5)).counts
    save_samples([Sample(None, annotation)], tmp_path / "set", ("annotations",))
    back = load_annotation(annotation_path(tmp_path / "set", 0))
    np.testing.assert_array_equal(overlapping(back), planes.sum(0))
    hidden = np.stack([small, small]).astype(np.uint16)
    with pytest.raises(ValueError, match="cell 1 of the layers is hidden whole by others"):
        layered(hidden, (0.5, 0.5))


def test_a_folder_is_read_as_a_sequence_and_as_layers(tmp_path):
    for n, frame in enumerate(frames(3)):
        (tmp_path / "time").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "time" / f"{n}_masks.tif", frame.labels)
    (tmp_path / "layers").mkdir()
    planes = np.zeros((2, 40, 60), np.uint16)
    planes[0, 5:25, 5:35], planes[1, 10:30, 30:50] = 1, 1
    tifffile.imwrite(tmp_path / "layers" / "a_masks.tif", planes)
    for reading, more in (("time", ["--step_um", "2"]), ("layers", [])):
        words = ["simulate", "labels", "--source", str(tmp_path / reading), "--reading", reading, *more]
        words += ["--spacing_um", "0.5", "0.5", "--output_dir", str(tmp_path / "out" / reading)]
        assert main(words) == 0
    volume, plane = (load_annotation(annotation_path(tmp_path / "out" / name, 0)) for name in ("time", "layers"))
    assert (volume.labels.shape, volume.spacing_um) == ((4, 40, 60), (2.0, 0.5, 0.5))
    assert plane.spacing_um == (0.5, 0.5)
    np.testing.assert_array_equal(overlapping(plane), planes.sum(0))


def test_sequences_are_volumes_of_their_own_and_gaps_are_named(tmp_path, capsys):
    for sequence, times in (("01", (0, 1, 2)), ("02", (0, 1))):
        place = tmp_path / "set" / f"{sequence}_GT" / "SEG"
        place.mkdir(parents=True)
        for n in times:
            tifffile.imwrite(place / f"man_seg{n:03d}.tif", frames(3)[n].labels)
    words = ["simulate", "labels", "--source", str(tmp_path / "set"), "--reading", "time", "--step_um", "2"]
    words += ["--spacing_um", "0.5", "0.5"]
    assert main([*words, "--output_dir", str(tmp_path / "out")]) == 0
    shapes = [load_annotation(annotation_path(tmp_path / "out", n)).labels.shape[0] for n in range(2)]
    assert shapes == [3, 2]
    (tmp_path / "set" / "01_GT" / "SEG" / "man_seg001.tif").unlink()
    assert main([*words, "--output_dir", str(tmp_path / "other")]) == 1
    assert (
        "01_GT/SEG: frame 0 is followed by 2, and reading time needs the labels of all frames"
        in capsys.readouterr().err
    )


def test_the_record_says_the_voxel_size_that_was_made(tmp_path):
    """And not the one that was given of what was read."""
    plane = np.zeros((40, 60), np.uint16)
    plane[5:25, 5:35] = 1
    (tmp_path / "planes").mkdir()
    tifffile.imwrite(tmp_path / "planes" / "a_masks.tif", plane)
    words = ["simulate", "labels", "--source", str(tmp_path / "planes"), "--reading", "slice", "--step_um", "1"]
    words += ["--spacing_um", "0.5", "0.5", "--format", "ctc", "cellpose", "stardist"]
    assert main([*words, "--output_dir", str(tmp_path / "out")]) == 0
    for place in ("ctc", "cellpose/stacks", "stardist"):
        assert json.loads((tmp_path / "out" / place / "dataset.json").read_text())["spacing_um"] == [1.0, 0.5, 0.5]
        (file,) = find_labels(tmp_path / "out" / place)
        assert file.annotation()[0].spacing_um == (1.0, 0.5, 0.5)


def test_planes_of_several_pixel_sizes_keep_theirs_in_coco(tmp_path):
    labels = np.zeros((9, 9), np.uint16)
    labels[2:5, 2:7] = 1
    samples = [Sample(None, Annotation.of_labels(labels, (side, side)), 0, n) for n, side in enumerate((0.5, 0.7))]
    folder = save_samples(samples, tmp_path / "coco", ("coco",))
    assert [file.annotation()[0].spacing_um for file in find_labels(folder)] == [(0.5, 0.5), (0.7, 0.7)]


def test_what_is_no_slice_is_refused():
    deep = nuclei(np.random.default_rng(0), DEEP)
    with pytest.raises(ValueError, match="a slice to be repeated must be a plane"):
        repeated(deep, 8, 1.0)
    with pytest.raises(ValueError, match="stacks have a z of their own"):
        over_time([deep], 1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mouse"], "there is no organism mouse: nuclei, "),
        ([], "simulate takes an organism and its flags"),
        (["auto", "--output_dir", "x"], "auto needs --like FOLDER"),
        (["gowt1", "--output_dir", "x", "--like", "y"], "--like goes with nuclei, tissue and auto"),
        (["nuclei"], "--output_dir: to be given"),
        (["nuclei", "--output_dir", "x", "--radius_um", "0"], "--radius_um must be above 0, got 0"),
        (["nuclei", "--output_dir", "x", "--radius_um", "nan"], "--radius_um must be numbers"),
        (["nuclei", "--output_dir", "x", "--nucleoli", "1"], "there is no --nucleoli"),
        (["celegans", "--output_dir", "x", "--canvas_size", "64", "64"], "--canvas_size must be z y x"),
        (["nuclei", "--output_dir", "x", "--format", "coco", *DEEP_WORDS], "COCO describes planes"),
        (["labels", "--output_dir", "x", "--source", "none"], "none: no such folder"),
        (["zebrafish", "--output_dir", "x", "--detections", "none.csv"], "none.csv: there is no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *words]) in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").rglob("*.*"))


def test_labels_in_pieces_are_refused_by_name(tmp_path, capsys):
    plane = np.zeros((40, 40), np.uint16)
    plane[2:8, 2:8], plane[30:38, 30:38], plane[2:8, 30:38] = 1, 1, 2
    (tmp_path / "set" / "masks").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "set" / "masks" / "a.tif", plane)
    words = ["simulate", "labels", "--source", str(tmp_path / "set"), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 1
    assert "a.tif: ids in several pieces: 1; give every piece its own id" in capsys.readouterr().err


def test_more_than_there_are_labels_is_refused(made, tmp_path, capsys):
    words = ["simulate", "labels", "--source", str(made), "--output_dir", str(tmp_path / "o"), "--num_images", "9"]
    assert main(words) == 1
    assert "--num_images asks for 9" in capsys.readouterr().err


def test_settings_come_from_a_file(tmp_path):
    (tmp_path / "one.yaml").write_text("canvas_size: [96, 96]\nnum_cells: [4, 8]\nnum_images: 2\n")
    words = ["simulate", "nuclei", "--config", str(tmp_path / "one.yaml"), "--output_dir", str(tmp_path / "set")]
    assert main(words) == 0
    assert len(list((tmp_path / "set" / "annotations").iterdir())) == 2
    assert main([*words[:-1], str(tmp_path / "set"), "--num_cells", "5"]) == 1  # another job in the same folder


def test_an_organism_lists_its_own_flags(capsys):
    assert main(["simulate", "gowt1", "--help"]) == 0
    assert "--nucleoli" in capsys.readouterr().out
    assert main(["simulate", "celegans", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--nucleoli" not in said
    assert "--mitotic_elongation" in said


def test_validate_finds_what_is_wrong_with_labels_alone(made, tmp_path):
    import shutil

    from cascade.export.annotations import save_annotation

    folder = tmp_path / "set"
    shutil.copytree(made, folder)
    annotation = load_annotation(annotation_path(folder, 2))
    labels = annotation.labels.copy()
    labels[0, 0] = labels[-1, -1] = annotation.cells[0].label
    save_annotation(replace(annotation, labels=labels), annotation_path(folder, 2))
    annotation_path(folder, 4).write_bytes(b"nothing")
    found = validate(ValidateSettings(folder))
    assert len(found.errors) == 2
    assert "sample_000002.safetensors: ids in several pieces: 1" in found.errors[0]
    assert "sample_000004.safetensors: holds no annotation" in found.errors[1]


def test_annotations_are_measured_like_any_labels(made):
    from cascade.data.like import like

    seen = like(made)
    assert seen.origin == "labels"
    assert seen.spacing_um == CELLS.spacing_um
    assert seen.measures.cells_per_image.tolist() == [len(simulated(nuclei, CELLS)(3, n).cells) for n in range(7)]


def test_what_is_no_set_of_labels_is_named(tmp_path):
    square = {"size": [4, 4], "counts": [0, 8, 8]}
    known = {
        "images": [{"id": 7, "file_name": "images/x.png", "height": 4, "width": 4}],
        "annotations": [{"id": n, "image_id": 7, "segmentation": square} for n in (1, 2)],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(known))
    assert "cell 2 lies on another one of images/x.png" in validate(ValidateSettings(tmp_path)).errors[0]
    known["annotations"] = [{"id": 1, "image_id": 7, "segmentation": [[0, 0, 3, 0, 3, 3]]}]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "annotations.json").write_text(json.dumps(known))
    assert "polygons" in validate(ValidateSettings(tmp_path / "other")).errors[0]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(b"nothing")
    assert "cannot be read" in validate(ValidateSettings(tmp_path)).errors[0]


def test_sequences_are_short_enough_where_the_first_image_has_few_cells():
    """By the first alone 400 such images were one sequence, whose tracks had no numbers left when all had been made."""

    def source(seed: int, index: int) -> Annotation:
        labels = np.zeros((40, 40), np.uint16)
        labels[::2, ::2] = np.arange(1, 401).reshape(20, 20)
        return Annotation.of_labels(np.where(labels <= (400 if index else 4), labels, 0).astype(np.uint16), (1.0, 1.0))

    own, settings = CELLS, SimulateSettings(output_dir=Path("x"), num_images=400, format=("ctc",))
    job = simulation_job(settings, "nuclei", own, source)
    assert job.frames_per_sequence == ctc.TRACK_IDS // (2 * 400)
