import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import tifffile
from conftest import ball_stack, field_of_view
from datasets import load_dataset

from cascade.annotation import Annotation, Sample
from cascade.data.frames import find_frames
from cascade.data.label_sets import find_labels
from cascade.data.spacing import spacing_of
from cascade.export import ctc
from cascade.export.formats import FORMATS, DataSetWriter
from cascade.export.mesh import solid_mesh
from cascade.export.preview import sample_preview
from cascade.export.records import SampleRecord, write_cells
from cascade.export.save import save_samples
from cascade.export.tiff import write_tiff
from cascade.files import STATE

SPACING = {2: (0.65, 0.65), 3: (2.0, 0.8, 0.8)}


def sample(ndim, index, seed=0):
    rng = np.random.default_rng(seed + index)
    image, labels = field_of_view(rng) if ndim == 2 else ball_stack(rng, count=5)
    return Sample(image, Annotation.of_labels(labels, SPACING[ndim]), seed, index)


@pytest.fixture(scope="module", params=[2, 3])
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "set"
    samples = [sample(request.param, n) for n in range(3)]
    return save_samples(samples, folder), samples


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"coco"}))
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_sample_has_the_same_bytes_each_time(name, ndim, tmp_path):
    folders = [save_samples([sample(ndim, 0)], tmp_path / once, (name,)) for once in ("a", "b")]
    first, second = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file() and STATE not in p.parts}
        for f in folders
    )
    assert len(first) > 2
    assert first == second


def test_a_stack_of_one_slice_is_written(tmp_path):
    image, labels = (np.expand_dims(one, 0) for one in field_of_view(np.random.default_rng(0)))
    one = Sample(image, Annotation.of_labels(labels, SPACING[3]))
    save_samples([one], tmp_path, ("ctc",))
    np.testing.assert_array_equal(np.squeeze(labels), tifffile.imread(tmp_path / "01_GT" / "SEG" / "man_seg000.tif"))


def test_the_challenges_own_tools_accept_it(written, tmp_path):
    """As a result it is valid, and against itself as the truth it gets full marks, for py-ctcmetrics."""
    from ctc_metrics import evaluate_sequence, validate_sequence

    folder, samples = written
    truth, result = folder / "01_GT", tmp_path / "01_RES"
    result.mkdir()
    (result / "res_track.txt").write_text((truth / "TRA/man_track.txt").read_text())
    for n in range(len(samples)):
        (result / f"mask{n:03d}.tif").write_bytes((truth / "TRA" / f"man_track{n:03d}.tif").read_bytes())
    assert validate_sequence(str(result), threads=1)["Valid"] == 1
    scores = evaluate_sequence(str(result), str(truth), ["SEG", "DET", "TRA"], threads=1)
    assert scores["SEG"] == scores["DET"] == scores["TRA"] == 1


def test_cellposes_loader_reads_it(written, tmp_path):
    from cellpose import io

    _, samples = written
    spacing = samples[0].spacing_um
    save_samples(samples, tmp_path / "set", ("cellpose",))
    images, labels, names, *_ = io.load_train_test_data(str(tmp_path / "set" / "train"))
    whole = tmp_path / "set" / ("train" if len(spacing) == 2 else "stacks")
    frames, bare = find_frames(whole)
    assert (len(frames), bare) == (3, 0)
    assert spacing_of(whole, frames, len(spacing))[0] == spacing
    for frame, one in zip(frames, samples, strict=True):
        np.testing.assert_array_equal(frame.image(), one.image)
        np.testing.assert_array_equal(frame.labels(), one.labels)
    if len(spacing) == 2:
        assert len(images) == len(names) == 3  # the preview is not taken for an image
        for image, found, one in zip(images, labels, samples, strict=True):
            np.testing.assert_array_equal(image, one.image)
            np.testing.assert_array_equal(np.asarray(found).astype(np.uint16), one.labels)
        return
    assert len(images) == 3 * 3 * 8
    assert all(plane.ndim == 2 and np.max(found) > 0 for plane, found in zip(images, labels, strict=True))
    by_name = {name.split("/")[-1]: (plane, found) for name, plane, found in zip(names, images, labels, strict=True)}
    for name, (plane, found) in by_name.items():
        one, axis, n = samples[int(name[7:13])], ["xy", "xz", "yz"].index(name[14:16]), int(name[16:19])
        cut = np.take(one.labels, n, axis)
        if axis == 0:
            np.testing.assert_array_equal(plane, one.image[n])
            np.testing.assert_array_equal(found, cut)
        else:  # 2 µm along z, 0.8 across
            assert found.shape == (round(cut.shape[0] * 2 / 0.8), cut.shape[1])
            assert set(np.unique(found)) <= set(np.unique(cut))
            assert np.count_nonzero(found) == pytest.approx(2.5 * np.count_nonzero(cut), rel=0.1, abs=5)


def test_our_own_reader_reads_it_with_its_spacing(written):
    folder, samples = written
    frames, bare = find_frames(folder)
    assert bare == 0
    for frame, one in zip(frames, samples, strict=True):
        np.testing.assert_array_equal(frame.image(), one.image)
        np.testing.assert_array_equal(frame.labels(), one.labels)
    spacing = samples[0].spacing_um
    assert spacing_of(folder, frames, len(spacing)) == (spacing, "dataset.json")
    (folder / "dataset.json").rename(folder / "hidden")
    found, origin = spacing_of(folder, frames, len(spacing))
    (folder / "hidden").rename(folder / "dataset.json")
    assert origin == "TIFF metadata"
    np.testing.assert_allclose(found, spacing, rtol=1e-5)


def test_long_sets_are_split_so_that_track_ids_fit(tmp_path):
    tiny = np.zeros((8, 8), np.uint16)
    one = Sample(tiny, Annotation.of_labels(np.pad(np.arange(1, 5, dtype=np.uint16).reshape(2, 2), 3), (1.0, 1.0)))
    for number in range(13):
        ctc.write(one, number, tmp_path, frames_per_sequence=10)
    ctc.finish(tmp_path, [SampleRecord.of(one, number) for number in range(13)], (1.0, 1.0), {}, frames_per_sequence=10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01", "01_GT", "02", "02_GT", "dataset.json"]
    assert len(list((tmp_path / "01").iterdir())) == 10
    assert tifffile.imread(tmp_path / "01_GT/TRA/man_track009.tif").max() == 40
    tracks = np.loadtxt(tmp_path / "02_GT/TRA/man_track.txt", dtype=int)
    np.testing.assert_array_equal(tracks[:, 0], np.arange(1, 13))
    assert (tracks[-1] == [12, 2, 2, 0]).all()
    many = replace(SampleRecord.of(one, 0), cells=10_000 * one.cells)
    with pytest.raises(ValueError, match="more cells than the 65535 numbers"):
        ctc.finish(tmp_path, [many] * 2, (1.0, 1.0), {}, frames_per_sequence=10)


def test_ids_beyond_16_bits_are_kept_and_tracks_are_counted(tmp_path):
    """Three images of two cells each, the second with an id that two of which no sequence would hold."""
    labels = np.zeros((8, 8), np.uint32)
    labels[1:3, 1:3], labels[5:7, 5:7] = 1, 70_000
    one = Annotation.of_labels(labels, (0.5, 0.5))
    folder = save_samples([Sample(None, one, 0, n) for n in range(3)], tmp_path / "set", ("ctc", "huggingface"))
    tracks = np.loadtxt(folder / "ctc" / "01_GT" / "TRA" / "man_track.txt", dtype=int)
    assert tracks[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    mask = tifffile.imread(folder / "ctc" / "01_GT" / "TRA" / "man_track001.tif")
    assert (mask == np.where(labels == 70_000, 4, np.where(labels == 1, 3, 0))).all()
    rows = load_dataset(str(folder / "huggingface"), split="train", cache_dir=str(tmp_path / "cache"))
    assert (np.array(rows[1]["labels"]) == labels).all()
    assert all((file.annotation()[0].labels == labels).all() for file in find_labels(folder / "huggingface"))


def test_what_only_some_cells_have_is_a_column_all_the_same(tmp_path):
    labels = np.zeros((8, 8), np.uint16)
    labels[1:3, 1:3], labels[5:7, 5:7] = 1, 2
    one = Annotation.of_labels(labels, (0.5, 0.5))
    lit = replace(one, cells=(one.cells[0], replace(one.cells[1], brightness=500.0)))
    write_cells([SampleRecord.of(Sample(None, lit, 0, 0), 0)], tmp_path / "cells.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "cells.parquet")["brightness"].to_pylist() == [None, 500.0]


def test_more_labels_than_16_bits_are_written(tmp_path):
    labels = np.arange(70_000, dtype=np.uint32).reshape(100, 700)
    write_tiff(tmp_path / "labels.tif", labels, (0.5, 0.5))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels.tif"), labels)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Both kinds of samples in every format that takes them."""
    folders = {}
    for ndim in (2, 3):
        names = tuple(name for name in FORMATS if name != "coco" or ndim == 2)
        samples = [sample(ndim, n) for n in range(2)]
        folders[ndim] = (save_samples(samples, tmp_path_factory.mktemp("all") / "set", names), samples)
    return folders


@pytest.mark.parametrize("ndim", [2, 3])
def test_ome_tiff_keeps_pixels_and_spacing(everything, ndim):
    folder, samples = everything[ndim]
    for n, one in enumerate(samples):
        for kind, array in (("images", one.image), ("labels", one.labels)):
            with tifffile.TiffFile(folder / "ome-tiff" / kind / f"sample_{n:06d}.ome.tif") as tiff:
                np.testing.assert_array_equal(tiff.asarray(), array)
                pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
                found = [float(pixels[f"PhysicalSize{axis}"]) for axis in "ZYX"[-ndim:]]
                np.testing.assert_allclose(found, one.spacing_um)


@pytest.mark.parametrize("ndim", [2, 3])
def test_ome_zarr_is_read_by_its_own_library(everything, ndim):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models import open_ome_zarr
    from zarr import open_group

    folder, samples = everything[ndim]
    for n, one in enumerate(samples):
        path = folder / "ome-zarr" / f"sample_{n:06d}.ome.zarr"
        image, *_, labels = Reader(parse_url(path))()
        np.testing.assert_array_equal(np.asarray(image.data[0]), one.image)
        np.testing.assert_array_equal(np.asarray(labels.data[0]), one.labels)
        scale = image.metadata["coordinateTransformations"][0][0]["scale"]
        np.testing.assert_allclose(scale, one.spacing_um)
        assert [axis["unit"] for axis in image.metadata["axes"]] == ["micrometer"] * ndim
        assert open_ome_zarr(open_group(path, mode="r")).ome_zarr_version == "0.5"


def test_pyramids_keep_ids_and_thin_stacks(tmp_path):
    from cascade.export import ome_zarr

    labels = np.zeros((10, 700, 1300), np.uint16)
    labels[:, 100:300, 200:700], labels[4:7, 400:600, 900:1200] = 7, 60_000
    one = Sample(labels, Annotation.of_labels(labels, (2.0, 0.5, 0.5)))
    ome_zarr.write(one, 0, tmp_path)
    import zarr

    root = zarr.open_group(tmp_path / "sample_000000.ome.zarr", mode="r")
    shapes = [root[str(level)].shape for level in range(3)]
    assert shapes == [(10, 700, 1300), (10, 350, 650), (10, 175, 325)]
    scales = [d["coordinateTransformations"][0]["scale"] for d in root.attrs["ome"]["multiscales"][0]["datasets"]]
    assert scales == [[2.0, 0.5, 0.5], [2.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    for level in range(3):
        assert set(np.unique(root["labels/cells"][str(level)][:])) == {0, 7, 60_000}


def test_coco_is_read_by_its_own_library(everything):
    from PIL import Image
    from pycocotools.coco import COCO

    folder, samples = everything[2]
    coco = COCO(str(folder / "coco" / "annotations.json"))
    for n, one in enumerate(samples):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "coco" / coco.imgs[n]["file_name"])), one.image)
        found = np.zeros(one.labels.shape, int)
        for annotation in coco.imgToAnns[n]:
            mask = coco.annToMask(annotation).astype(bool)
            found[mask] = annotation["label"]
            assert annotation["area"] == mask.sum()
            x, y, width, height = annotation["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum()
        np.testing.assert_array_equal(found, one.labels)
    with pytest.raises(ValueError, match="choose another --format for 3D"):
        DataSetWriter(("coco",)).write(sample(3, 0), 0, folder)


@pytest.mark.parametrize("ndim", [2, 3])
def test_hugging_face_reads_its_data_set(everything, ndim, tmp_path):
    import io

    import datasets

    folder, samples = everything[ndim]
    table = datasets.load_dataset(str(folder / "huggingface"), cache_dir=tmp_path)["train"]
    assert len(table) == 2
    for row, one in zip(table, samples, strict=True):
        for key, array in (("image", one.image), ("labels", one.labels)):
            value = row[key]
            found = tifffile.imread(io.BytesIO(value["bytes"])) if ndim == 3 else np.asarray(value)
            np.testing.assert_array_equal(found, array)
        assert tuple(row["spacing_um"]) == one.spacing_um


@pytest.mark.parametrize("ndim", [2, 3])
def test_pairs_lie_where_stardist_and_nnunet_look(everything, ndim):
    import json

    folder, samples = everything[ndim]
    for n, one in enumerate(samples):
        name = f"sample_{n:06d}"
        np.testing.assert_array_equal(tifffile.imread(folder / f"stardist/masks/{name}.tif"), one.labels)
        np.testing.assert_array_equal(tifffile.imread(folder / f"stardist/images/{name}.tif"), one.image)
        np.testing.assert_array_equal(tifffile.imread(folder / f"nnunet/imagesTr/{name}_0000.tif"), one.image)
        classes = tifffile.imread(folder / f"nnunet/labelsTr/{name}.tif")
        np.testing.assert_array_equal(classes > 0, one.labels > 0)
        assert set(np.unique(classes)) == {0, 1, 2}
        if ndim == 3:
            assert json.loads((folder / f"nnunet/imagesTr/{name}.json").read_text())["spacing"] == [2.0, 0.8, 0.8]
    record = json.loads((folder / "nnunet/dataset.json").read_text())
    assert record["numTraining"] == 2
    assert record["labels"] == {"background": 0, "cell": 1, "border": 2}


def test_every_cell_has_its_row(everything):
    import pyarrow.parquet as pq

    folder, samples = everything[2]
    table = pq.read_table(folder / "cells.parquet").to_pydict()
    assert table["sample"] == [0] * len(samples[0].cells) + [1] * len(samples[1].cells)
    assert table["label"] == [c.label for one in samples for c in one.cells]


def test_nothing_half_written_is_left(tmp_path):
    def broken():
        yield sample(2, 0)
        raise RuntimeError("the power went")

    save_samples([sample(2, 5)], tmp_path / "set")
    before = (tmp_path / "set/01/t000.tif").read_bytes()
    with pytest.raises(RuntimeError):
        save_samples(broken(), tmp_path / "set")
    assert (tmp_path / "set/01/t000.tif").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(FileExistsError, match="holds something else"):
        save_samples([sample(2, 0)], tmp_path / "mine")
    with pytest.raises(ValueError, match="no sample"):
        save_samples([], tmp_path / "none")
    with pytest.raises(ValueError, match=r"no format 'jpeg'"):
        save_samples([sample(2, 0)], tmp_path / "none", ("jpeg",))


def test_a_ball_is_a_watertight_mesh_with_its_volume():
    mesh = solid_mesh(lambda p: np.linalg.norm(p - (1, 2, 3), axis=1) - 5, (18, 20, 22), 0.4)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 125, rel=0.01)  # positive: the faces look outwards
    np.testing.assert_allclose(mesh.center_mass, (3, 2, 1), atol=0.02)  # x, y, z
    with pytest.raises(ValueError, match="no surface"):
        solid_mesh(lambda p: np.ones(len(p)), (4, 4, 4), 1.0)


def test_nodes_on_the_surface_do_not_tear_the_mesh():
    """An octahedron whose corners and edges lie on nodes of the grid, to within rounding."""
    for error in (0.0, 1e-9, -1e-9):
        mesh = solid_mesh(lambda p, e=error: np.abs(p).sum(1) - 1.0 + e, (3.0,) * 3, 0.25)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(4 / 3, rel=0.03)


@pytest.mark.parametrize("ndim", [2, 3])
def test_previews_show_image_and_outlines(ndim, tmp_path):
    from PIL import Image

    sample_preview(sample(ndim, 0), tmp_path / "p.png")
    picture = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    coloured = picture.max(-1) - picture.min(-1) > 60
    assert coloured.any()
    half = picture.shape[0] // 2 if ndim == 3 else None
    plain = coloured[:half] if ndim == 3 else coloured[:, : picture.shape[1] // 2 - 8]
    assert not plain.any()


def test_help_is_fast_and_imports_no_torch():
    code = "import sys, cascade.commands.cli as c; c.main(['generate', '--help']); "
    code += "print('torch' in sys.modules, 'numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split()[-2:] == ["False", "False"]
    assert "--clustering_probability" in said


def test_the_packages_have_one_name_only():
    """`import pipelines` from a checkout would make a second class of every pipeline."""
    from pathlib import Path

    root = Path(__file__).parents[1]
    for path in root.rglob("*.py"):
        if ".venv" not in path.parts and path.name != Path(__file__).name:
            for line in path.read_text().splitlines():
                assert not line.startswith(
                    ("import pipelines", "from pipelines", "import training", "from training")
                ), path


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_image_of_no_cell_is_written_in_every_format(ndim, tmp_path):
    nothing = Annotation.of_labels(np.zeros_like(sample(ndim, 0).labels), SPACING[ndim])
    empty = replace(sample(ndim, 0), annotation=nothing)
    formats = tuple(name for name in FORMATS if (ndim, name) != (3, "coco"))
    folder = save_samples([empty, sample(ndim, 1)], tmp_path / "set", formats)
    assert not [name for name in formats if not any((folder / name).rglob("*"))]
    if ndim == 2:
        record = json.loads((folder / "coco" / "annotations.json").read_text())
        assert [image["height"] for image in record["images"]] == [empty.image.shape[0]] * 2
        assert {cell["image_id"] for cell in record["annotations"]} == {1}
