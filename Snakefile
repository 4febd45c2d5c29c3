# ACAR-Net with its Actor-Context Feature Bank, from videos to a report.
#   snakemake --cores all --resources gpu=8
# The rules only say what depends on what; each runs one `acar` subcommand of the same name.


configfile: f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"


rule all:
    default_target: True
    input:
        PATHS.report,
        # What reads the bank depends on its manifest alone: a shard that was lost is made again for this.
        [
            PATHS.bank_shard(split, shard)
            for split in SPLITS
            for shard in shards(CONFIG, split)
            if has_stage2(CONFIG)
        ],


include: "rules/data.smk"
include: "rules/detect.smk"
include: "rules/stage1.smk"
include: "rules/bank.smk"
include: "rules/stage2.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
