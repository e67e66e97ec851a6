"""Model folders on disk and on the Hugging Face Hub; safetensors only."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers

from cascade.hub.embedded import embedded, is_embedded

_PACKAGE = "cascade."
FEW_STEPS = "few_steps.safetensors"
"""A stage's second set of weights, see `few_steps`."""
_WANTED = ("*.json", "*.safetensors", "*.md", "*.txt", "*.png")
_NOT_NEEDED = ("*.fp16.*", "*.non_ema.*", "safety_checker/*")  # gigabytes of a Stable Diffusion


class ModelError(ValueError):
    """A model folder that cannot be used; the message names it and the mend."""


def model_folder(path_or_repo_id: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a model, embedded ones by name; a Hub repository is downloaded into the cache first, configs and
    safetensors only.

    Raises ModelError if there is neither such a folder nor such a repository, if it holds crops, or if a component has
    pickled weights but no safetensors.
    """
    name = str(path_or_repo_id)
    folder = embedded(name) if is_embedded(path_or_repo_id) else Path(name)
    if not folder.is_dir():
        folder = _download(name, revision, token)
    if any(folder.glob("data/*.parquet")):
        raise ModelError(
            f"{folder}: holds crops of 'cascade prepare', not a model; train one on them: cascade train mask"
        )
    for pickled in (p for suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl") for p in folder.rglob("*" + suffix)):
        if "checkpoint-" in str(pickled.relative_to(folder)):
            continue  # a training's own state, which is not read here
        if not any(pickled.parent.glob("*.safetensors")):
            raise ModelError(f"{pickled}: pickled weights are not read; save the model with safe_serialization=True")
    return folder


def base_model_folder(path_or_repo_id: str | Path) -> Path:
    """The folder of a model in Stable Diffusion's layout; raises ModelError if its main parts are not there."""
    folder = model_folder(path_or_repo_id)
    parts = {"vae": "config.json", "unet": "config.json", "scheduler": "scheduler_config.json"}
    check_components(folder, "Stable Diffusion base model", parts)
    return folder


def check_components(folder: Path, pipeline: str, components: dict[str, str]) -> None:
    """Raise ModelError unless every component's subfolder holds its file; `components` maps folder to file name."""
    for name, file in components.items():
        if not (folder / name / file).is_file():
            raise ModelError(f"{folder}: {name}/{file} is missing for a {pipeline}; train it, or copy it there")


@contextmanager
def naming_class(folder: Path, pipeline: type) -> Iterator[None]:
    """Let a ModelError say what to load a folder with, where that is another of the package's pipelines."""
    try:
        yield
    except ModelError as error:
        name = model_index(folder).get("_class_name")
        if not name or hasattr(diffusers, name) or name in {kind.__name__ for kind in pipeline.__mro__}:
            raise
        raise ModelError(f"{folder}: is a {name}: load it with {name}.from_pretrained") from error


def model_index(folder: Path) -> dict[str, Any]:
    """What a folder's model_index.json says, the class without its package; nothing without one."""
    index = folder / "model_index.json"
    record = read_json(index) if index.is_file() else {}
    if "_class_name" in record:
        record["_class_name"] = str(record["_class_name"]).removeprefix(_PACKAGE)
    return record


def name_package(folder: Path) -> None:
    """Name the class in a saved model_index.json as "cascade.SketchPipeline": diffusers' generic loader, which knows
    its own classes alone, then says what to call instead."""
    index = folder / "model_index.json"
    record = read_json(index)
    record["_class_name"] = _PACKAGE + record["_class_name"].removeprefix(_PACKAGE)
    index.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What a model's JSON file says; raises ModelError, naming it, unless it can be read and holds an object."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:  # not JSON, not UTF-8, not there
        raise ModelError(f"{path} cannot be read ({error}): copy the model again") from error
    if not isinstance(record, dict):
        raise ModelError(f"{path} holds {json.dumps(record)[:20]} where settings should be: copy the model again")
    return record


def write_records(folder: Path, records: Mapping[str, Any]) -> None:
    """Write each record that there is as `name.json`, and remove what an earlier model left in place of the others."""
    for name, record in records.items():
        path = folder / f"{name}.json"
        if record is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def forget_paths(folder: Path) -> None:
    """Take out of a saved model's configs where on this machine its parts were loaded from."""
    for path in folder.rglob("*.json"):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and record.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def push(
    pipeline: Any, repo_id: str, private: bool | None = None, token: str | None = None, cards: str | Path | None = None
) -> str:
    """Upload what `save_pretrained` writes to a Hub repository, with the cards of the folder `cards`, default the one
    that the pipeline was loaded from; returns the commit's address.

    (diffusers' own `push_to_hub` puts an empty card over the one that was saved.)
    """
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        forget_paths(Path(folder))
        source = Path(cards or pipeline.name_or_path or folder)
        for path in (*source.glob("README.md"), *source.glob("*/README.md"), *source.glob("preview.png")):
            place = Path(folder) / path.relative_to(source)
            if path.suffix == ".md" and place.parent.is_dir():
                place.write_text(without_samples(path.read_text()))
            elif path.suffix == ".png":
                shutil.copy(path, place)
        return upload(folder, repo_id, f"Upload {type(pipeline).__name__}", _WANTED, private, token)


def without_samples(card: str) -> str:
    """A card without the picture that a training put there: it may show images that are not to be shared."""
    return "".join(line for line in card.splitlines(keepends=True) if not line.startswith("![samples]"))


def upload(
    folder: str | Path,
    repo_id: str,
    message: str,
    patterns: Iterable[str],
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """Upload the files of a folder that match `patterns` to a Hub repository; returns the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    return str(
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, allow_patterns=list(patterns))
    )


def _download(repo_id: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*/*.safetensors" if name == "*.safetensors" else name for name in _WANTED]  # no single-file models
    wanted.append(FEW_STEPS)  # of a stage alone, where it lies beside the index
    unwanted = list(_NOT_NEEDED)
    try:
        return Path(
            snapshot_download(repo_id, revision=revision, token=token, allow_patterns=wanted, ignore_patterns=unwanted)
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{repo_id}: neither a folder nor a model on the Hub that can be reached ({reason})"
        ) from error
