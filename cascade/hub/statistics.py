"""The statistics of a saved model."""

from pathlib import Path
from typing import Any

from cascade.hub import folders as hub
from cascade.optics.statistics import FILE_NAME, Statistics


def saved_statistics(folder: Path) -> dict[str, Any]:
    """Of a model: from a saved cascade's model_index.json, or from what the training scripts left beside the stages.

    Raises `hub.ModelError` where there are none, or unsound ones.
    """
    record = hub.model_index(folder)
    if "statistics" in record:
        try:
            Statistics.from_dict(record["statistics"])
        except ValueError as error:
            raise hub.ModelError(f"{folder / 'model_index.json'}: {error}") from error
        return record["statistics"]
    for candidate in (folder, folder / "texture"):
        if (candidate / FILE_NAME).is_file():
            try:
                return Statistics.load(candidate).to_dict()
            except ValueError as error:
                raise hub.ModelError(str(error)) from error
    raise hub.ModelError(f"{folder}: no {FILE_NAME}; copy it there from the crops that the stages were trained on")
