"""A stage's networks from its folder, complete and finite, or one line that names the file."""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError
from tqdm.auto import tqdm

from cascade.hub import folders as hub
from cascade.hub.cards import copy_card
from cascade.hub.few_steps import add_few_steps
from cascade.hub.folders import FEW_STEPS

log = logging.getLogger(__name__)

_FAILURES = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, OSError, SafetensorError)


class HubStage:
    """How a stage is loaded and published; comes before `DiffusionPipeline` among a pipeline's bases.

    networks: the stage's networks by name, and what they are. The scheduler is the other thing that a stage has, if it
    is `scheduled`. fitted: arguments that are long records, each kept as `name.json` beside model_index.json, and by
    the stage as `_name`.
    """

    networks: ClassVar[dict[str, type[ModelMixin]]]
    fitted: ClassVar[tuple[str, ...]] = ()
    in_few_steps: bool = False
    """Whether it was loaded with the weights that draw in a few steps."""
    few_steps_file: Path | None = None
    """Where these lie, of a stage that was loaded without."""
    scheduled: ClassVar[bool] = True
    bar: ClassVar[dict[str, Any]] = {}
    """How its progress bar looks, unless `set_progress_bar_config` says otherwise."""

    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> Any:
        """As diffusers', but none where the environment has TQDM_DISABLE, as in commands without a terminal."""
        return tqdm(iterable, total=total, **self.bar | getattr(self, "_progress_bar_config", {}))

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id: str | Path,
        revision: str | None = None,
        token: str | None = None,
        *,
        few_steps: bool = False,
        **options: Any,
    ) -> Self:
        """Load from a folder or a Hub repository; `options` are those of diffusers, and components to use instead.

        few_steps: with the weights that draw in a few steps; where the folder has none, those that it has.

        Raises `hub.ModelError`, naming the file, if something is missing or pickled, is cut or of another encoding, or
        if weights do not fit their network or are not finite; naming the class if the folder is another pipeline's.
        """
        folder = hub.model_folder(path_or_repo_id, revision, token)
        with hub.naming_class(folder, cls):
            stage = cls._loaded(folder, options)
        if not options.keys() & cls.networks.keys():
            stage.in_few_steps = few_steps and add_few_steps(stage, folder)
            beside = folder / FEW_STEPS
            stage.few_steps_file = beside if beside.is_file() and not stage.in_few_steps else None
        return stage

    @classmethod
    def _loaded(cls, folder: Path, options: dict[str, Any]) -> Self:
        files = {name: "config.json" for name in cls.networks}
        files |= {"scheduler": "scheduler_config.json"} if cls.scheduled else {}
        files = {name: file for name, file in files.items() if name not in options}
        hub.check_components(folder, cls.__name__, files)
        for path in (folder / "model_index.json", *(folder / name / file for name, file in files.items())):
            hub.read_json(path)
        for name in cls.fitted:
            if name not in options and (path := folder / f"{name}.json").is_file():  # else model_index.json has it
                options[name] = hub.read_json(path)
        how = {key: options[key] for key in ("dtype", "torch_dtype", "variant") if key in options}
        given = {name: load_network(kind, folder / name, **how) for name, kind in cls.networks.items() if name in files}
        try:
            stage: Self = super().from_pretrained(folder, use_safetensors=True, **options, **given)  # type: ignore[misc]
        except _FAILURES as error:
            raise hub.ModelError(f"{folder}: its configs make no {cls.__name__} ({_first_line(error)})") from error
        return stage

    def save_pretrained(
        self, save_directory: str | Path, safe_serialization: bool = True, variant: str | None = None, **options: Any
    ) -> None:
        """Write the stage into a folder, with its card, and with the weights for few steps that lay beside its own
        where it is from; without these, and with a warning, if its own are not those any more."""
        folder, few_steps_file = Path(save_directory), self._own_few_steps_file()
        super().save_pretrained(folder, safe_serialization, variant, **options)  # type: ignore[misc]
        hub.name_package(folder)
        hub.write_records(folder, {name: getattr(self, f"_{name}") for name in self.fitted})
        copy_card(self.name_or_path, folder)  # type: ignore[attr-defined]
        if few_steps_file is None:
            (folder / FEW_STEPS).unlink(missing_ok=True)  # of other weights
        elif few_steps_file.resolve() != (folder / FEW_STEPS).resolve():
            shutil.copyfile(few_steps_file, folder / FEW_STEPS)

    def _own_few_steps_file(self) -> Path | None:
        """The weights for few steps, if the networks are still as in the folder that the stage was loaded from."""
        if self.few_steps_file is None:
            return None
        source = Path(str(self.name_or_path)).resolve()  # type: ignore[attr-defined]
        try:
            same = self.few_steps_file.is_file() and all(
                _same(getattr(self, name), load_network(kind, source / name)) for name, kind in self.networks.items()
            )
        except hub.ModelError:  # it is gone
            same = False
        if not same:
            log.warning("%s is left out: the weights are not those that are in %s", self.few_steps_file, source)
        return self.few_steps_file if same else None

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the stage with its card; returns the commit's address."""
        return hub.push(self, repo_id, private, token)


def load_network(kind: type[ModelMixin], folder: Path, **options: Any) -> Any:
    """A network from its folder, where it has to have every weight, of the right shape, and finite.

    (diffusers only warns of weights that are missing, and draws them at random.) Raises `hub.ModelError` otherwise.
    """
    try:
        network, found = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    except _FAILURES as error:
        raise hub.ModelError(
            f"{_weights(folder)}: no {kind.__name__} can be made of these weights and {folder.name}/config.json "
            f"({_first_line(error)}); copy the model again, or train it"
        ) from error
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise hub.ModelError(f"{_weights(folder)}: {_some(missing)} missing; copy the model again, or train it")
    bad = _not_finite(network.state_dict())
    if bad:
        raise hub.ModelError(f"{_weights(folder)}: {_some(bad)} not finite; copy the model again, or train it")
    return network


def _same(network: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two networks have the same weights, those of the other rounded as the first's."""
    values, others = network.state_dict(), other.state_dict()
    return values.keys() == others.keys() and all(
        torch.equal(value.cpu(), others[name].to(value.dtype)) for name, value in values.items()
    )


def _not_finite(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or an infinite value."""
    floating = {name: values for name, values in tensors.items() if values.is_floating_point()}
    if torch.nn.utils.get_total_norm(list(floating.values())).isfinite():  # one pass over all of them
        return []
    return [name for name, values in floating.items() if not values.isfinite().all()]


def _weights(folder: Path) -> Path:
    """The file to name: a network's weights, or its folder if they are not one file."""
    files = sorted(folder.glob("*.safetensors"))
    return files[0] if len(files) == 1 else folder


def _some(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} other tensors are" if len(names) > 1 else f"{names[0]} is"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". If you want")[0] if lines else type(error).__name__
