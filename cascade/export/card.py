"""The card of a data set, as the Hub shows it."""

from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

_TAGS = ("microscopy", "cell-segmentation", "cascade-microscopy")


def write_data_card(
    folder: Path, title: str, text: str, *, count: int, licence: str | None = None, synthetic: bool = True
) -> None:
    """Write `README.md` with front matter into a folder whose rows are `data/*.parquet`.

    text: Markdown below the title. count: of rows. licence: as the Hub names it, where that is known.
    """
    front = DatasetCardData(
        license=licence,
        pretty_name=title,
        task_categories=["image-segmentation"],
        size_categories=[size_category(count)],
        tags=[*_TAGS, *["synthetic-data"] * synthetic],
        configs=[{"config_name": "default", "data_files": "data/*.parquet"}],
    )
    DatasetCard(f"---\n{front.to_yaml()}\n---\n# {title}\n\n{text}").save(folder / "README.md")


def size_category(count: int) -> str:
    """How large a data set is, in the Hub's classes.

    >>> size_category(30), size_category(1000), size_category(123_456)
    ('n<1K', '1K<n<10K', '100K<n<1M')
    """
    bounds = [(10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M")]
    below = ""
    for bound, name in bounds:
        if count < bound:
            return f"{below}<n<{name}" if below else f"n<{name}"
        below = name
    return f"n>{below}"
