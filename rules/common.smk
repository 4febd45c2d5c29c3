# The typed config and the names that the rules share; the logic is in acar/workflow.py.

from functools import partial

from snakemake.exceptions import WorkflowError

from acar.config import SPLITS, parse_config
from acar.errors import UserError
from acar.origins.finished import set_aside_finished
from acar.origins.record import Artefact
from acar.jobs.owners import own_run, take_over
from acar.models.grid import check_frame_sizes
from acar.paths import Paths
from acar.jobs.resources import (
    GRES_COUNT,
    gpus_asked,
    gpus_offered,
    stage_resources,
    stage_threads,
)
from acar.origins.settled import Settled
from acar.workflow import (
    annotation_files,
    backbone_files,
    check_results_folder,
    check_weights_fetched,
    detector_files,
    examples_variant,
    has_stage2,
    initial_detector_files,
    key_frame_files,
    label_source,
    put_acar_on_path,
    reads_bank,
    shards,
    stage1_files,
    stage1_gpus,
    stage_digest,
    trained_files,
    trains_stage1,
    variants,
    video_folders,
    write_config,
)

try:
    CONFIG = parse_config(config, source="config")
    check_results_folder(CONFIG)
    check_weights_fetched(CONFIG)
    check_frame_sizes(CONFIG)
except UserError as error:
    raise WorkflowError(str(error)) from None

PATHS = Paths.of(CONFIG)
threads_of = partial(stage_threads, CONFIG, cores=workflow.resource_settings.cores)
GPUS_OFFERED = gpus_offered(workflow.global_resources)
if CONFIG.resources.gpus_as == "gres" and GPUS_OFFERED is not None:
    workflow.register_resource(GRES_COUNT, GPUS_OFFERED)
resources_of = partial(stage_resources, CONFIG, offered=GPUS_OFFERED)
put_acar_on_path()
if workflow.is_main_process:
    take_over(
        jobs_run_here=workflow.resource_settings.nodes is None, owners=PATHS.owners
    )


settled = Settled(CONFIG)


def sealed(split, reader):
    """A bank's manifest. A bank that is only rebuilt from what it came from does not rerun a finished reader."""
    manifest = PATHS.bank(split) / "manifest.json"
    return ancient(manifest) if settled(reader) else manifest


wildcard_constraints:
    split="|".join(SPLITS),
    shard=r"\d{3}",
    variant="|".join(variants(CONFIG)),


# Jobs read one merged config file. It is written when a run starts, under Snakemake's lock and by the main
# process only, so neither a dry run nor a job's own Snakemake process can change it under running jobs.
onstart:
    if workflow.is_main_process:
        try:
            own_run(PATHS.owners)
            set_aside_finished(CONFIG)
            write_config(CONFIG)
        except UserError as error:
            raise WorkflowError(str(error)) from None
