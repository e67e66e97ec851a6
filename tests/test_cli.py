"""The command line: the same settings from words, YAML and Python; mistakes in one line."""

import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
import yaml

from cascade.app.settings import AppSettings
from cascade.commands.cli import flags_of, main
from cascade.commands.settings import AssembleSettings, DemoSettings, FitSettings, SampleSettings
from cascade.commands.table import COMMANDS
from cascade.data.settings import PrepareSettings, ThinSettings, ValidateSettings
from cascade.diffusion.painting import PaintingSettings
from cascade.evaluation.settings import EvaluateSettings, TuneSettings
from cascade.gan.painting import QualitySettings
from cascade.generation.settings import GenerationSettings, SourceSettings
from cascade.generation.sketching import SketchingSettings
from cascade.population.settings import CascadeSettings

ROOT = Path(__file__).parents[1]
SAME = {
    "demo": ("--output_dir here --seed 3", [DemoSettings(output_dir="here", seed=3)]),
    "prepare": (
        "images --output_dir crops --sequences 01 02 --spacing_um 0.65 0.65 --sparse --pixel_size_um 1",
        [
            PrepareSettings(
                "images",
                output_dir="crops",
                sequences=["01", "02"],
                spacing_um=(0.65, 0.65),
                sparse=True,
                pixel_size_um=1.0,
            )
        ],
    ),
    "thin": (
        "images --output_dir few --cells 30 --truth st",
        [ThinSettings("images", output_dir="few", cells=30, truth="st")],
    ),
    "fit": (
        "images --output_dir cells --budget 120 --test others --test_sequences 02 --skip mask texture --licence CC0",
        [
            FitSettings(
                "images",
                output_dir="cells",
                budget=120,
                test="others",
                test_sequences=["02"],
                skip=["mask", "texture"],
                licence="CC0",
            )
        ],
    ),
    "generate": (
        "--output_dir set --canvas_size 32 160 160 --format ctc cellpose --meshes --rho inf --region mask.tif --only 0 "
        "--simulate gowt1 --t_start 300 --num_inference_steps 7 --alpha 50 --tile_overlap 8",
        [
            GenerationSettings(
                output_dir=Path("set"), format=("ctc", "cellpose"), meshes=True, region=Path("mask.tif"), only=0
            ),
            CascadeSettings(canvas_size=(32, 160, 160), rho=inf, num_inference_steps=7),
            SourceSettings(simulate="gowt1"),
            PaintingSettings(t_start=300, num_inference_steps=7, tile_overlap=8),
            QualitySettings(alpha=50.0, tile_overlap=8),
        ],
    ),
    "tune": (
        "images --model sketch2d --truth gt --sequences 01 --t_start 200 400 --sigma 0 1.5 --num_images 2 --save",
        [
            TuneSettings(
                "images",
                model="sketch2d",
                truth="gt",
                sequences=["01"],
                t_start=[200, 400],
                sigma=[0, 1.5],
                num_images=2,
                save=True,
            )
        ],
    ),
    "validate": ("images --sequences 01", [ValidateSettings("images", sequences=["01"])]),
    "evaluate": (
        "--real_train a --real_train_sequences 01 --real_test b --real_test_truth st --synthetic c other=d "
        "--sparse real=e synthetic=f --ratios 0 50 100 --cellprob_threshold -2 --output_dir report",
        [
            EvaluateSettings(
                real_train="a",
                real_train_sequences=["01"],
                real_test="b",
                real_test_truth="st",
                synthetic=["c", "other=d"],
                sparse=["real=e", "synthetic=f"],
                ratios=[0, 50, 100],
                cellprob_threshold=-2,
                output_dir="report",
            )
        ],
    ),
    "sketch": (
        "annotations --like images --like_sequences 01 02 --structure membranes --seed 3 --format cellpose stardist "
        "--spacing_um 2 0.5 0.5 --output_dir sketches",
        [
            SketchingSettings(
                "annotations",
                like="images",
                like_sequences=["01", "02"],
                structure="membranes",
                seed=3,
                format=["cellpose", "stardist"],
                spacing_um=[2, 0.5, 0.5],
                output_dir="sketches",
            )
        ],
    ),
    "assemble": ("stages --output_dir model --half", [AssembleSettings("stages", output_dir="model", half=True)]),
    "sample": ("nuclei30 images --seed 3", [SampleSettings("nuclei30", "images", seed=3)]),
    "app": ("--host 0.0.0.0 --port 8000 --model cells", [AppSettings(host="0.0.0.0", port=8000, model="cells")]),
    "doctor": ("", []),
}


def plain(value):
    """As YAML writes it."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize("name", SAME)
def test_words_a_file_and_python_make_the_same_settings(name, tmp_path):
    assert set(SAME) == set(COMMANDS)
    words, settings = SAME[name]
    flags = flags_of(name)
    assert flags.parse(words.split()) == settings
    assert [set(map(type, vars(made).values())) for made in flags.parse(words.split())] == [
        set(map(type, vars(made).values())) for made in settings
    ]
    if settings:
        file = {field: plain(value) for made in settings for field, value in vars(made).items()}
        (tmp_path / "all.yaml").write_text(yaml.safe_dump(file, allow_unicode=True))
        assert flags.parse(["--config", str(tmp_path / "all.yaml")]) == settings


def test_flags_win_over_a_file_wherever_they_stand(tmp_path):
    file = tmp_path / "set.yaml"
    file.write_text("source: images\noutput_dir: a\nseed: 1\nsparse: true\n")
    flags, config = flags_of("prepare"), f"--config={file}"
    assert flags.parse([config])[0] == PrepareSettings("images", output_dir="a", seed=1, sparse=True)
    for words in (
        ["others", "--seed", "2", "--sparse", "false", config],
        [config, "others", "--seed=2", "--sparse=false"],
    ):
        assert flags.parse(words)[0] == PrepareSettings("others", output_dir="a", seed=2)


@pytest.mark.parametrize("config", sorted(ROOT.glob("configs/ablation_harmonics.yaml")))
def test_the_file_of_the_ablation_is_understood(config):
    settings, images, *_ = flags_of("generate").parse(["--config", str(config), "--output_dir", "out"])
    assert (settings.model, settings.num_images, images.shapes) == ("nuclei3d", 50, "harmonics")


WRONG = [
    ("nonsense", "cascade: there is no command nonsense; there are demo, sample, prepare, "),
    ("generate", "cascade generate: --output_dir: to be given"),
    ("prepare --output_dir x", "SOURCE: to be given"),
    ("generate --output_dir x --num 2", "there is no --num; did you mean --num_images?"),
    ("generate --output_dir x --canvas_sise 2", "there is no --canvas_sise; did you mean --canvas_size?"),
    ("generate --output_dir x --zzz", "there is no --zzz; cascade generate --help lists all"),
    ("generate --output_dir x y", "y: one word too many"),
    ("generate --output_dir x --rho", "--rho needs a value"),
    ("generate --output_dir x --rho -1", "--rho must be at least 0"),
    ("generate --output_dir x --num_images few", "--num_images must be a whole number, got few"),
    ("generate --output_dir x --num_images 1.5", "--num_images must be a whole number, got 1.5"),
    ("generate --output_dir x --canvas_size 64 a", "--canvas_size must be a whole number, got a"),
    ("generate --output_dir x --format ctc jpeg", "--format must be one of ctc, cellpose, stardist, nnunet, "),
    ("generate --output_dir x --tiles", "--tiles needs"),
    ("generate --config none.yaml", "none.yaml: there is no such file"),
    ("prepare a --output_dir b --crop_size 65", "--crop_size must be a multiple of 16, at least 32, got 65"),
    ("prepare a --output_dir b --pixel_size_um nan", "--pixel_size_um must be a length above 0"),
    ("prepare a --output_dir b --spacing_um 1", "--spacing_um must be y x or z y x"),
    ("thin a --output_dir b", "give --cells or --frames, one of them"),
    ("thin a --output_dir b --frames 0", "--frames must be a whole number from 1, got 0"),
    ("fit a --output_dir b --budget nan", "--budget must be minutes above 0, got nan"),
    ("fit a --output_dir b --skip cook", "--skip must be one of prepare, mask"),
    ("evaluate --real_train a --real_test b --synthetic c --output_dir d --ratios 101", "--ratios must be percent"),
    ("evaluate --real_train a --real_test b --synthetic c --output_dir d --seeds 0", "--seeds must be a whole number"),
    ("train", "a stage and its flags: mask, multiview, ldm, controlnet"),
    ("train masks", "there is no stage masks"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_cannot_be_is_one_line_and_code_2(words, message, capsys):
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shape: harmonics", "wrong.yaml: there is no --shape; did you mean --shapes?"),
        ("- a\n- b", "wrong.yaml has no settings: write one 'option: value' a line"),
        ("a: [1", "wrong.yaml: Problems parsing config"),
        ("model: 01", "--model must be text, got 1; in a YAML file, put it in quotes"),
        ("num_images: many", "--num_images must be a whole number, got many"),
        ("meshes: perhaps", "--meshes must be true or false, got perhaps"),
    ],
)
def test_a_file_that_cannot_be_is_named(text, message, tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text(text)
    assert main(["generate", "--output_dir", "out", "--config", str(tmp_path / "wrong.yaml")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_help_is_of_the_fields_and_loads_no_network():
    code = "import sys; from cascade.commands.cli import main; main(sys.argv[1:]); "
    code += "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    for words in (["--help"], ["prepare", "--help"], ["generate", "--help"], ["evaluate", "--help"]):
        out = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True).stdout
        assert out.endswith("[]\n")
    assert "--cellprob_threshold X" in out
    assert "Of Cellpose's segmentations: below 0 cells are larger (default 0.0)" in " ".join(out.split())


def test_alone_it_says_what_there_is(capsys):
    assert main([]) == 2
    assert all(f"\n  {name} " in capsys.readouterr().err for name in ["prepare"])
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in [*COMMANDS, "train"])
