import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from cascade import CascadePipeline, CascadeSettings, MaskDDPMPipeline, MultiviewPipeline, TexturePipeline, embedded
from cascade.commands.cli import main
from cascade.hub.folders import ModelError

FAST = dict(num_inference_steps=6)


@pytest.fixture(scope="module")
def flat():
    return quiet(CascadePipeline.from_pretrained(embedded("nuclei2d")))


@pytest.fixture(scope="module")
def deep():
    return quiet(CascadePipeline.from_pretrained(embedded("nuclei3d")))


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline, seed=0, **options):
    return pipeline(generator=torch.Generator().manual_seed(seed), **(FAST | options))


@pytest.fixture(scope="module")
def plane(flat):
    return generate(flat, canvas_size=(160, 192), cells_per_image=8).samples[0]


@pytest.fixture(scope="module", params=["inflated", "multiview"])
def shapes(request):
    return request.param


@pytest.fixture(scope="module")
def stack(deep, shapes):
    return generate(deep, canvas_size=(24, 72, 72), cells_per_image=4, shapes=shapes).samples[0]


def check(sample, shape):
    assert sample.image.shape == sample.labels.shape == shape
    assert sample.image.dtype == sample.labels.dtype == np.uint16
    ids = np.unique(sample.labels)
    np.testing.assert_array_equal(ids, np.arange(len(sample.cells) + 1))
    structure = np.ones((3,) * len(shape))
    for record in sample.cells:
        mine = sample.labels == record.label
        assert ndimage.label(mine, structure)[1] == 1
        centroid = np.argwhere(mine).mean(0) * sample.spacing_um
        np.testing.assert_allclose(record.centroid_um, centroid, atol=1e-3)


def test_a_plane_is_annotated_and_brighter_where_it_says(plane, flat):
    check(plane, (160, 192))
    assert len(plane.cells) >= 6
    cells, between = (
        plane.image[plane.labels > 0],
        plane.image[ndimage.binary_dilation(plane.labels, iterations=8) == 0],
    )
    level = flat.statistics.background.levels
    assert min(level) - 20 < between.mean() < max(level) + 20
    assert cells.mean() > 1.5 * between.mean()
    assert plane.spacing_um == flat.statistics.spacing_um


def test_a_stack_is_annotated_and_consists_of_solids(stack, deep, shapes):
    check(stack, (24, 72, 72))
    assert len(stack.cells) >= 3
    inside = stack.image[stack.labels > 0].astype(float)
    outside = stack.image[ndimage.binary_dilation(stack.labels, iterations=4) == 0].astype(float)
    assert inside.mean() - outside.mean() > 20
    for cell in stack.cells:
        assert cell.residual < 0.1 if shapes == "multiview" else cell.residual is None
        assert cell.solid(np.zeros((1, 3), np.float32))[0] < 0
        slices = np.flatnonzero((stack.labels == cell.label).any((1, 2)))
        assert len(slices) == slices[-1] - slices[0] + 1
    assert deep.statistics.ndim == 3


def test_a_solid_lies_where_its_label_is(stack):
    """The signed distance around `origin_um` and the label volume are one and the same."""
    for cell in stack.cells:
        mine = stack.labels == cell.label
        points = np.argwhere(np.ones(mine.shape, bool)) * stack.spacing_um - np.array(cell.origin_um)
        inside = (cell.solid(points.astype(np.float32)) < 0).reshape(mine.shape)
        free = mine | (stack.labels == 0)
        assert (inside & mine & free).sum() / ((inside | mine) & free).sum() > 0.95


def test_the_same_seed_gives_the_same_bytes(flat, plane):
    again = generate(flat, canvas_size=(160, 192), cells_per_image=8).samples[0]
    assert again.image.tobytes() == plane.image.tobytes()
    assert again.labels.tobytes() == plane.labels.tobytes()
    other = generate(flat, seed=1, canvas_size=(160, 192), cells_per_image=8).samples[0]
    assert other.image.tobytes() != plane.image.tobytes()


def test_an_image_does_not_depend_on_the_others(flat):
    settings = CascadeSettings(canvas_size=(96, 96), cells_per_image=3, **FAST)
    two = list(flat.generate(7, range(2), settings))
    (second,) = flat.generate(7, range(1, 2), settings)
    assert second.image.tobytes() == two[1].image.tobytes()
    assert two[0].image.tobytes() != two[1].image.tobytes()


def test_one_call_without_arguments_gives_one_annotated_image(flat):
    output = flat(num_inference_steps=2)  # another image with every call
    assert len(output.images) == len(output.labels) == len(output.samples) == 1
    assert output.images[0].shape == output.labels[0].shape == flat.statistics.image_shape
    assert len(output.samples[0].cells) == len(np.unique(output.labels[0])) - 1 > 0


def test_the_whole_and_each_stage_are_saved_and_loaded(deep, stack, shapes, tmp_path):
    deep.save_pretrained(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    assert "CC BY 3.0" in (tmp_path / "README.md").read_text()
    loaded = quiet(CascadePipeline.from_pretrained(tmp_path))
    again = generate(loaded, canvas_size=(24, 72, 72), cells_per_image=4, shapes=shapes).samples[0]
    assert again.image.tobytes() == stack.image.tobytes()
    MaskDDPMPipeline.from_pretrained(tmp_path / "mask")
    MultiviewPipeline.from_pretrained(tmp_path / "multiview")
    TexturePipeline.from_pretrained(tmp_path / "texture")


def test_a_folder_that_the_scripts_filled_is_a_cascade(tmp_path, flat):
    for stage in ("mask", "texture"):
        shutil.copytree(embedded("nuclei2d") / stage, tmp_path / stage)
    with pytest.raises(ModelError, match=r"no statistics.json; copy it"):
        CascadePipeline.from_pretrained(tmp_path)
    flat.statistics.save(tmp_path / "texture")
    loaded = CascadePipeline.from_pretrained(tmp_path)
    assert loaded.statistics == flat.statistics


def test_an_embedded_model_is_loaded_by_its_name(flat):
    assert CascadePipeline.from_pretrained("nuclei2d").statistics == flat.statistics


def test_a_missing_stage_is_named(tmp_path):
    shutil.copytree(embedded("nuclei3d"), tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "multiview")
    with pytest.raises(ModelError, match="multiview/ is missing"):
        CascadePipeline.from_pretrained(tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "texture")
    with pytest.raises(ModelError, match=r"texture/model_index.json is missing for a CascadePipeline"):
        CascadePipeline.from_pretrained(tmp_path / "m")


def test_views_alone_need_the_multiview_stage(tmp_path, deep):
    lone = quiet(CascadePipeline(deep.mask, deep.texture, deep.statistics.to_dict()))
    options = dict(canvas_size=(20, 64, 64), cells_per_image=2, num_inference_steps=2, min_alignment=0)
    assert generate(lone, shapes="inflated", **options).samples[0].image.shape == (20, 64, 64)
    with pytest.raises(ValueError, match="shapes='multiview' needs that stage"):
        generate(lone, **options)
    lone.save_pretrained(tmp_path)
    assert CascadePipeline.from_pretrained(tmp_path).multiview is not None  # the embedded one, which fits any


def test_moving_and_casting_reach_every_stage(flat):
    other = CascadePipeline.from_pretrained(embedded("nuclei2d"), dtype=torch.float64)
    assert {p.dtype for p in other.texture.unet.parameters()} == {torch.float64}
    other.to(torch.float16)
    assert {p.dtype for s in (other.mask.unet, other.texture.vae) for p in s.parameters()} == {torch.float16}
    assert str(other.to("meta").texture.unet.device) == "meta"
    assert other.device.type == other.mask.device.type == "meta"


def test_pushing_uploads_safetensors_and_the_card(flat, monkeypatch):
    import huggingface_hub

    seen = {}

    def create_repo(self, repo_id, **options):
        return type("Repo", (), {"repo_id": repo_id})()

    def upload_folder(self, repo_id, folder_path, allow_patterns, **options):
        assert not any("_name_or_path" in p.read_text() for p in Path(folder_path).rglob("*.json"))  # nobody's business
        files = huggingface_hub.utils.filter_repo_objects(
            sorted(str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file()),
            allow_patterns=allow_patterns,
        )
        seen[repo_id] = list(files)
        return "commit"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    assert flat.push_to_hub("me/my-nuclei") == "commit"
    wanted = {"README.md", "model_index.json", "texture/unet/diffusion_pytorch_model.safetensors"}
    assert wanted | {"preview.png", "mask/README.md", "texture/README.md"} <= set(seen["me/my-nuclei"])
    flat.mask.push_to_hub("me/outlines")
    assert {"model_index.json", "unet/config.json"} <= set(seen["me/outlines"])


def test_wrong_arguments_are_refused(flat):
    with pytest.raises(ValueError, match="this model makes 2D images"):
        generate(flat, canvas_size=(8, 64, 64))
    with pytest.raises(ValueError, match="clustering_probability"):
        generate(flat, canvas_size=(64, 64), cells_per_image=1, clustering_probability=2)


def test_cells_without_room_are_reported(flat, caplog):
    sample = generate(flat, canvas_size=(64, 64), cells_per_image=16, num_inference_steps=2).samples[0]
    assert sample.counts["cells without room"] > 0
    assert len(sample.cells) + sample.counts["cells without room"] == 16
    assert "found no room on a canvas of 64×64" in caplog.text


def test_textures_that_show_no_mask_are_no_data_set(flat, caplog):
    with pytest.raises(RuntimeError, match="the texture stage is not trained enough"):
        generate(flat, canvas_size=(128, 128), cells_per_image=8, num_inference_steps=2, min_alignment=1.0)
    sample = generate(
        flat, canvas_size=(128, 128), cells_per_image=2, num_inference_steps=2, min_alignment=1.0
    ).samples[0]
    assert sample.labels.max() == 0
    assert "2 of 2 cells could not be made: " in caplog.text
    assert "2 textures rejected" in caplog.text


def test_outlines_read_as_sections_belong_to_larger_cells(deep):
    options = dict(
        canvas_size=(32, 96, 96), cells_per_image=4, num_inference_steps=2, min_alignment=0, shapes="ellipsoids"
    )
    sizes = {}
    for reading in ("silhouette", "section"):
        cells = generate(deep, reading=reading, **options).samples[0].cells
        sizes[reading] = sum(cell.outline.sum() for cell in cells) / len(cells)
    assert sizes["section"] > 1.1 * sizes["silhouette"]
    with pytest.raises(ValueError, match="reading must be one of silhouette, section"):
        generate(deep, reading="cut", **options)


def test_solids_for_comparison_take_the_place_of_imagined_ones(deep):
    options = dict(canvas_size=(32, 96, 96), cells_per_image=3, num_inference_steps=2, min_alignment=0)
    for shapes in ("inflated", "harmonics", "ellipsoids"):
        sample = generate(deep, shapes=shapes, **options).samples[0]
        outlines = np.array([cell.outline.sum() for cell in sample.cells]) * sample.cells[0].outline_pixel_um ** 2
        seen = [(sample.labels == n + 1).any(0).sum() for n in range(len(sample.cells))]
        seen = np.array(seen) * np.prod(sample.spacing_um[1:])
        assert seen.sum() == pytest.approx(outlines.sum(), rel=0.25), shapes  # cut a little by each other
    with pytest.raises(ValueError, match="multiview, inflated, harmonics, ellipsoids"):
        generate(deep, shapes="cubes", **options)


def test_the_command_line_generates_a_data_set(tmp_path, capsys):
    arguments = ["generate", "--model", "nuclei3d", "--num_images", "1", "--canvas_size", "16", "48", "48", "--meshes"]
    arguments += ["--cells_per_image", "2", "--num_inference_steps", "4", "--seed", "3"]
    assert main([*arguments, "--output_dir", str(tmp_path / "a")]) == 0
    assert "look at" in capsys.readouterr().out
    assert main([*arguments, "--output_dir", str(tmp_path / "b")]) == 0
    for name in ("01/t000.tif", "01_GT/SEG/man_seg000.tif", "01_GT/TRA/man_track000.tif", "preview.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    record = json.loads((tmp_path / "a" / "provenance.jsonl").read_text())
    assert record["index"] == 0
    assert len(list((tmp_path / "a" / "meshes" / "sample_000000").glob("*.glb"))) == record["cells"] > 0
    assert main(["generate", "--model", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "c")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
