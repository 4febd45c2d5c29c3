# The typed config and the names that the rules share; the logic is in acar/workflow.py.

from snakemake.exceptions import WorkflowError

from acar.config import SPLITS, parse_config
from acar.errors import UserError
from acar.owners import take_over
from acar.paths import Paths
from acar.workflow import (
    annotation_files,
    backbone_files,
    detector_files,
    gpu_job_threads,
    initial_detector_files,
    label_source,
    put_acar_on_path,
    shards,
    stage_digest,
    trained_files,
    variants,
    video_folders,
    write_config,
)

try:
    CONFIG = parse_config(config, source="config")
except UserError as error:
    raise WorkflowError(str(error)) from None

PATHS = Paths.of(CONFIG)
GPU_THREADS = gpu_job_threads(CONFIG, workflow.resource_settings.cores)
put_acar_on_path()
if workflow.is_main_process:
    take_over(jobs_run_here=workflow.resource_settings.nodes is None)


wildcard_constraints:
    split="|".join(SPLITS),
    shard=r"\d{3}",
    variant="|".join(variants(CONFIG)),


# Jobs read one merged config file. It is written when a run starts, under Snakemake's lock and by the main
# process only, so neither a dry run nor a job's own Snakemake process can change it under running jobs.
onstart:
    if workflow.is_main_process:
        write_config(CONFIG)
