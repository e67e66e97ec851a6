"""The dock widget: learn from an image and its labels, generate annotated images, export them."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FileEdit,
    FloatSpinBox,
    Label,
    LineEdit,
    ProgressBar,
    PushButton,
    SpinBox,
    create_widget,
)
from qtpy.QtWidgets import QScrollArea, QSizePolicy

from napari_cascade.fields import numbers, part
from napari_cascade.layers import annotated, data_of, is_separate, layer_data, units_of
from napari_cascade.work import Stopped, Tell, Work, in_one_line

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Labels

    from cascade.annotation import Sample
    from cascade.commands.settings import FitSettings

FITTED = "the fitted one"
"""Which model: that of the folder."""
SKIPPED = ("generate", "evaluate")
"""Steps of `cascade fit` that are buttons here."""
_FORMATS = ("ctc", "cellpose", "stardist", "nnunet", "ome-tiff", "ome-zarr", "coco", "huggingface", "annotations")
_MOST = 2**31 - 1


class CascadeWidget(QScrollArea):
    """Fields and buttons; what they do runs beside the window, one at a time."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:  # as napari looks for it
        super().__init__()
        self._viewer = viewer
        self._work = Work()
        self._samples: list[Sample] = []
        self._labels: Labels | None = None
        self._source = ""  # what made the samples
        self._ended: Callable[[Any], None] = lambda result: None
        self._kept: Callable[[], None] = lambda: None
        self._go_on = ""  # what to say of work that was stopped

        self.image_layer = create_widget(label="Image", annotation="napari.layers.Image")
        self.labels_layer = create_widget(label="Labels", annotation="napari.layers.Labels")
        self.sparse = CheckBox(value=True, text="only some cells are outlined")
        self.separate = CheckBox(value=False, text="first axis counts images, not z")
        self.voxel_size = LineEdit(label="Voxel size, µm", tooltip="y x or z y x; empty: the image layer's scale")
        self.minutes = FloatSpinBox(value=10.0, min=0.1, max=10_000.0, step=5.0, label="Minutes of training")
        self.folder = FileEdit(mode="d", value=Path.home() / "my_cells", label="Folder of the model")
        self.fit = PushButton(text="Fit")

        self.model = ComboBox(choices=("nuclei2d", "nuclei3d", FITTED), value="nuclei2d", label="Model")
        self.num_images = SpinBox(value=1, min=1, max=10_000, label="Images")
        self.num_cells = SpinBox(value=0, min=0, max=100_000, label="Cells in each (0: as real)")
        self.canvas = LineEdit(label="Size, y x or z y x", tooltip="voxels; empty: as the real images")
        self.bank = SpinBox(value=48, min=0, max=100_000, label="Different cells (0: all)")
        self.seed = SpinBox(value=0, min=0, max=_MOST, label="Seed")
        self.generate = PushButton(text="Generate")

        self.format = ComboBox(choices=_FORMATS, value="cellpose", label="Format")
        self.meshes = CheckBox(value=False, text="surfaces of the cells, too (3D, all different)")
        self.output = FileEdit(mode="d", value=Path.home() / "my_dataset", label="Folder of the data set")
        self.export = PushButton(text="Export")

        self.bar = ProgressBar(value=0, min=0, max=100, visible=False)
        self.stop = PushButton(text="Stop", enabled=False)
        self.said = Label(value="Choose an image and its labels, or generate with an embedded model.")
        annotated_by = [self.image_layer, self.labels_layer, self.sparse, self.separate, self.voxel_size]
        made_by = [self.model, self.num_images, self.num_cells, self.canvas, self.bank, self.seed]
        self._fields = Container(
            widgets=[
                *part("Learn", [*annotated_by, self.minutes, self.folder, self.fit]),
                *part("Generate", [*made_by, self.generate]),
                *part("Export", [self.format, self.meshes, self.output, self.export]),
                *(self.bar, self.stop, self.said),
            ],
            labels=False,
        )
        self.setWidget(self._fields.native)
        self.setWidgetResizable(True)
        self.said.native.setWordWrap(True)
        self.said.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._fields.native.layout().addStretch()
        self.said.native.setTextInteractionFlags(self.said.native.textInteractionFlags().TextSelectableByMouse)
        self.image_layer.changed.connect(self._told_axes)
        for button, action in ((self.fit, self._fit), (self.generate, self._generate), (self.export, self._export)):
            button.changed.connect(lambda _=None, action=action: self._try(action))
        self.stop.changed.connect(self._stop)
        self._work.told.connect(self._show)
        self._work.ended.connect(self._end)
        self._told_axes()

    def reset_choices(self, event: object = None) -> None:
        """The layers that there are; napari calls it when they change."""
        self._fields.reset_choices()

    def plan(self, spacing_um: tuple[float, ...]) -> "FitSettings":
        """What Fit does, as the command line would be asked. Raises ValueError for settings that cannot be."""
        from cascade.commands.settings import FitSettings

        folder = Path(self.folder.value)
        return FitSettings(
            folder / "annotated",
            output_dir=folder,
            spacing_um=spacing_um,
            sparse=self.sparse.value,
            budget=self.minutes.value,
            skip=SKIPPED,
        )

    def _fit(self) -> None:
        from cascade.commands.fit_arrays import fit_arrays, fit_words

        given = annotated(
            self.image_layer.value,
            self.labels_layer.value,
            separate=self.separate.value,
            spacing_um=numbers("voxel size", self.voxel_size.value, float),
        )
        plan = self.plan(given.spacing_um)
        command = shlex.join(fit_words(replace(plan, skip=())))
        self._go_on = f"what is finished is kept in {plan.output_dir}: Fit goes on from there, and so does {command}"

        def learn(tell: Tell) -> Path:
            return fit_arrays(given.images, given.labels, plan, tell=tell)

        def learned(model: Path) -> None:
            self.model.value = FITTED
            self.said.value = f"the model is {model}: Generate makes images with it"

        self._start(learn, learned)

    def _generate(self) -> None:
        from cascade.hub.folders import model_folder
        from cascade.population.settings import CascadeSettings

        name, seed, count, bank = self._model(), self.seed.value, self.num_images.value, self.bank.value or None
        folder, called = model_folder(name), Path(name).parent.name if self.model.value == FITTED else name
        settings = CascadeSettings(
            canvas_size=numbers("size", self.canvas.value, int) or None, cells_per_image=self.num_cells.value or None
        )
        made: list[Sample] = []
        self._go_on = "Generate begins anew; images that were finished are shown"

        def make(tell: Tell) -> "list[Sample]":
            tell((None, "starting the networks"))
            from cascade.generation.samples import generate_samples  # seconds, in which the window lives
            from cascade.hub.few_steps import has_few_steps

            def say(what: str) -> None:
                tell((len(made) / count, what))

            few = has_few_steps(folder)
            for sample in generate_samples(
                folder, settings, num_images=count, seed=seed, bank=bank, few_steps=few, tell=say
            ):
                made.append(sample)
            return made

        def shown(samples: "list[Sample]") -> None:
            if not samples:
                return
            self._add(samples, called)
            cells = sum(len(one.cells) for one in samples)
            self.said.value = f"{len(samples)} images with {cells} cells"

        self._start(make, shown, kept=lambda: shown(made))

    def _export(self) -> None:
        from cascade import __version__
        from cascade.export.save import save_samples

        if not self._samples:
            raise ValueError("there is nothing to export yet: generate images first")
        samples, folder = self._as_shown(), Path(self.output.value)
        about = {"made_by": f"cascade-microscopy {__version__}", "model": self._source, "seed": samples[0].seed}
        form, meshes = self.format.value, self.meshes.value
        if meshes and not any(cell.solid is not None for sample in samples for cell in sample.cells):
            raise ValueError(
                "these cells have no surfaces: generate stacks of cells that are all different (0), unchanged"
            )
        if form == "coco" and samples[0].labels.ndim == 3:
            raise ValueError("COCO describes planes, and these are stacks: choose another format")
        self._go_on = "nothing was written"

        def written(tell: Tell) -> "Iterator[Sample]":
            for n, sample in enumerate(samples):
                tell((n / len(samples), f"writing image {n + 1} of {len(samples)}"))
                yield sample

        def save(tell: Tell) -> Path:
            return save_samples(written(tell), folder, (form,), meshes=meshes, about=about)

        self._start(save, lambda place: setattr(self.said, "value", f"{len(samples)} images in {place} ({form})"))

    def _model(self) -> str:
        """Name or folder of the chosen model. Raises ValueError where nothing was fitted yet."""
        if self.model.value != FITTED:
            return str(self.model.value)
        folder = Path(self.folder.value) / "model"
        if not (folder / "model_index.json").is_file():
            raise ValueError(f"{folder} holds no model yet: press Fit first, or choose an embedded one")
        return str(folder)

    def _add(self, samples: "list[Sample]", name: str) -> None:
        """Show samples: the images of all along a first axis, where there are several."""
        self._samples, self._source = samples, name
        images = [one.image for one in samples]
        labels = [one.labels for one in samples]
        one = len(samples) == 1
        layers = layer_data(
            f"{name} seed {samples[0].seed}",
            images[0] if one else np.stack(images),
            labels[0].copy() if one else np.stack(labels),
            samples[0].spacing_um,
            units=units_of(self._viewer.layers),
        )
        *_, self._labels = [getattr(self._viewer, f"add_{kind}")(data, **options) for data, options, kind in layers]

    def _as_shown(self) -> "list[Sample]":
        """What was generated, with labels that were changed in the viewer since."""
        from cascade.annotation import Annotation

        if self._labels is None or self._labels not in self._viewer.layers:
            return self._samples
        shown = data_of(self._labels).reshape(len(self._samples), *self._samples[0].labels.shape)
        return [
            sample
            if np.array_equal(labels, sample.labels)
            else replace(sample, annotation=Annotation.of_labels(labels.astype(np.uint32), sample.spacing_um))
            for sample, labels in zip(self._samples, shown, strict=True)
        ]

    def _try(self, action: Callable[[], None]) -> None:
        """What a button does, or why it does not."""
        try:
            action()
        except (ValueError, OSError, ImportError) as error:
            self.said.value = in_one_line(error)

    def _start(
        self, function: Callable[[Tell], Any], ended: Callable[[Any], None], *, kept: Callable[[], None] = lambda: None
    ) -> None:
        self._ended, self._kept = ended, kept
        for button in (self.fit, self.generate, self.export):
            button.enabled = False
        self.stop.enabled, self.stop.text = True, "Stop"
        self.bar.visible = True
        self._show((None, "beginning"))
        self._work.start(function)

    def _stop(self) -> None:
        self.stop.text, self.stop.enabled = "stopping …", False
        self._work.stop()

    def _show(self, state: Any) -> None:
        """How far the work is: a FitState, or a share and a line."""
        if isinstance(state, tuple):
            share, said = state
        else:
            share = state.share
            where = f"[{state.number}/{state.of}] {state.step}" if state.step else "beginning"
            said = where if state.said.startswith("[") or not state.said else f"{where}: {state.said}"
        self.bar.native.setRange(0, 0 if share is None else 100)
        if share is not None:
            self.bar.value = round(100 * share)
        self.said.value = said

    def _end(self, result: Any) -> None:
        for button in (self.fit, self.generate, self.export):
            button.enabled = True
        self.stop.enabled, self.stop.text = False, "Stop"
        self.bar.visible = False
        if isinstance(result, BaseException):
            self._kept()  # what was finished until then
        if isinstance(result, Stopped):
            self.said.value = f"stopped: {self._go_on}"
        elif isinstance(result, BaseException):
            self.said.value = in_one_line(result)
        else:
            self._ended(result)

    def _told_axes(self) -> None:
        """Layers of this plugin say whether their first axis counts images; of others it is z, until it is ticked."""
        self.separate.value = is_separate(self.image_layer.value)
