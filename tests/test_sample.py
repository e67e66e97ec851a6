"""The sample that anyone can make: read by what reads people's own images, and the same for a seed."""

import numpy as np

from cascade.commands import sample as module
from cascade.commands.cli import main
from cascade.data.frames import find_frames


def test_a_sample_is_a_sound_set_and_the_same_for_a_seed(tmp_path, monkeypatch, capsys):
    for name, value in (("_IMAGES", 1), ("_CELLS", 2), ("_SIDE", 96)):
        monkeypatch.setattr(module, name, value)
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main(["sample", "nuclei30", str(tmp_path / folder), "--seed", seed]) == 0
    assert "cascade fit" in capsys.readouterr().out
    ((a,), bare), ((b,), _), ((c,), _) = (find_frames(tmp_path / folder) for folder in "abc")
    assert bare == 0
    assert a.image_path.read_bytes() == b.image_path.read_bytes()
    assert a.label_path.read_bytes() == b.label_path.read_bytes()
    assert not np.array_equal(a.labels(), c.labels())
    labels, image = a.labels(), a.image()
    assert 1 <= len(np.unique(labels)) - 1 <= 2
    assert image[labels > 0].mean() > 2 * np.median(image[labels == 0])
    assert main(["validate", str(tmp_path / "a")]) == 0
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("years of work")
    assert main(["sample", "nuclei30", str(tmp_path / "d")]) == 1
