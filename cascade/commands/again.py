"""One sample of a data set made again, to see whether it comes out the same: `--only`."""

from pathlib import Path

from cascade.annotation import Sample
from cascade.generation import shards
from cascade.generation.painting import Make
from cascade.generation.shards import Job


def make_again(output: Path, job: Job, make: Make[Sample], number: int, what: str) -> None:
    """Make a sample of the data set in `output` anew, and print where it lies.

    job: as it is asked for now; what: the sample is called. Raises ValueError as `shards.again` does, and names the
    settings that the data set was made with and the job has otherwise.
    """
    recorded = shards.load_job(output)
    try:
        made = shards.again(output, recorded, make, number)
    except ValueError as error:
        before, now = recorded.settings, job.settings
        other = [name.removesuffix("_sha256") for name in before if name in now and before[name] != now[name]]
        other += ["files"] * (recorded.model_sha256 != job.model_sha256)
        if not other:
            raise
        raise ValueError(
            f"{error} The data set was made with other {', '.join(other)}: give what it was made with"
        ) from error
    print(f"{what} {number} is the same, byte for byte: see {made}")
