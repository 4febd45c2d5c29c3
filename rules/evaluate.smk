# Scores for the actors of the val split, and their mean average precision by AVA's rules.


rule predict:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, "val")),
        unpack(lambda wildcards: trained_files(CONFIG, wildcards.variant)),
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
    threads: GPU_THREADS
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=720,
    params:
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "predict", "val"),
    shell:
        "acar predict --config {params.config_path:q} --variant {wildcards.variant} --shard {wildcards.shard}"
        " --gpus {resources.gpu} 2>&1 | tee {log:q}"


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
    resources:
        gpu=0,
        mem_mb=8000,
        runtime=120,
    params:
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "evaluate"),
    shell:
        "acar evaluate --config {params.config_path:q} --variant {wildcards.variant} 2>&1 | tee {log:q}"
