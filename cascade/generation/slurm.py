"""Shards as tasks of a Slurm array, or of this machine where there is no Slurm."""

from pathlib import Path

from cascade.generation.maker import CascadeMaker, making
from cascade.generation.settings import GenerationSettings
from cascade.generation.shards import load_job, run


def submit(model: Path, settings: GenerationSettings) -> str:
    """Hand the shards to a Slurm array, one task a part; returns what was submitted, and where.

    Raises ImportError, naming the extra, without submitit.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError("slurm needs submitit: pip install 'cascade-microscopy[slurm]'", name="submitit") from error
    executor = submitit.AutoExecutor(settings.output_dir / ".cascade" / "slurm")
    asked = {"slurm_gpus_per_node": settings.slurm_gpus} if settings.slurm_gpus else {}
    tasks = settings.slurm_tasks
    executor.update_parameters(
        slurm_partition=settings.slurm, timeout_min=24 * 60, slurm_array_parallelism=tasks, **asked
    )
    output, folder = str(settings.output_dir), str(model)
    jobs = executor.map_array(run_part, [output] * tasks, [folder] * tasks, range(tasks), [tasks] * tasks)
    where = "" if executor.cluster == "slurm" else f" to this machine, as there is no sbatch ({executor.cluster})"
    return f"{', '.join(job.job_id for job in jobs)}{where}"


def run_part(output_dir: str, model: str, rank: int, world: int) -> bool:
    """One task of an array: the shards of one rank."""
    job, output = load_job(output_dir), Path(output_dir)
    make, write = making(CascadeMaker(model, job, output, rank=rank, world=world))
    return run(output, job, make, rank, world, write)
