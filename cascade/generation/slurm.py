"""Shards as tasks of a Slurm array, or of this machine where there is no Slurm."""

from pathlib import Path

from cascade.generation import shards as generation
from cascade.generation.maker import maker


def submit(folder, options) -> None:
    """Hand the shards to a Slurm array, one task a part."""
    try:
        import submitit
    except ImportError as error:
        raise ValueError("--slurm needs submitit: pip install -e '.[slurm]'") from error
    executor = submitit.AutoExecutor(options.output_dir / ".cascade" / "slurm")
    asked = {"slurm_gpus_per_node": options.slurm_gpus} if options.slurm_gpus else {}
    executor.update_parameters(
        slurm_partition=options.slurm, timeout_min=24 * 60, slurm_array_parallelism=options.slurm_tasks, **asked
    )
    tasks = options.slurm_tasks
    jobs = executor.map_array(
        run_part, [str(options.output_dir)] * tasks, [str(folder)] * tasks, range(tasks), [tasks] * tasks
    )
    where = "" if executor.cluster == "slurm" else f" to this machine, as there is no sbatch ({executor.cluster})"
    ids = ", ".join(j.job_id for j in jobs)
    print(f"submitted {ids}{where}; the same command without --slurm shows what is done")


def run_part(output_dir: str, model: str, rank: int, world: int) -> bool:
    """One task of an array: the shards of one rank."""
    job = generation.load_job(output_dir)
    generate, write = maker(model, job, None, Path(output_dir), rank, world)
    return generation.run(output_dir, job, generate, rank, world, write)
