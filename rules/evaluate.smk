# Scores for the actors of the val split, and their mean average precision by AVA's rules.


rule predict:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, "val")),
        unpack(lambda wildcards: trained_files(CONFIG, wildcards.variant)),
        bank=lambda wildcards: (
            sealed(
                "val", Artefact("predict", "", int(wildcards.shard), wildcards.variant)
            )
            if reads_bank(wildcards.variant)
            else []
        ),
        videos=PATHS.ingest("val", "{shard}"),
        boxes=PATHS.boxes("val", "{shard}"),
    output:
        directory(PATHS.predictions("{variant}", "{shard}")),
    log:
        PATHS.log("predict/{variant}-{shard}"),
    benchmark:
        PATHS.timing("predict/{variant}-{shard}")
    conda:
        "../envs/gpu.yaml"
    threads: threads_of("predict")
    resources:
        **resources_of("predict", gpu=1),
    params:
        gpus=gpus_asked,
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "predict", "val"),
    shell:
        "acar predict --config {params.config_path:q} --variant {wildcards.variant} --shard {wildcards.shard}"
        " --gpus {params.gpus} 2>&1 | tee {log:q}"


rule evaluate:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, "val")),
        predictions=[
            PATHS.predictions("{variant}", shard) for shard in shards(CONFIG, "val")
        ],
        videos=[PATHS.ingest("val", shard) for shard in shards(CONFIG, "val")],
        boxes=[PATHS.boxes("val", shard) for shard in shards(CONFIG, "val")],
    output:
        metrics=PATHS.evaluation("{variant}") / "metrics.json",
        per_class=report(
            PATHS.evaluation("{variant}") / "per_class.csv",
            caption="../workflow/report/per_class.rst",
            category="Evaluation",
            labels={"variant": "{variant}"},
        ),
    log:
        PATHS.log("evaluate/{variant}"),
    benchmark:
        PATHS.timing("evaluate/{variant}")
    conda:
        "../envs/cpu.yaml"
    threads: threads_of("evaluate")
    resources:
        **resources_of("evaluate", gpu=0),
    params:
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "evaluate"),
    shell:
        "acar evaluate --config {params.config_path:q} --variant {wildcards.variant} 2>&1 | tee {log:q}"
