# The actor-context feature bank: maps of every second of every video, a Zarr store a shard, then sealed.


rule extract_bank:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, wildcards.split)),
        weights=PATHS.training(1),
        videos=PATHS.ingest("{split}", "{shard}"),
        boxes=PATHS.boxes("{split}", "{shard}"),
    output:
        directory(PATHS.bank_shard("{split}", "{shard}")),
    log:
        PATHS.log("extract_bank/{split}-{shard}"),
    benchmark:
        PATHS.timing("extract_bank/{split}-{shard}")
    conda:
        "../envs/gpu.yaml"
    threads: threads_of("extract_bank")
    resources:
        **resources_of("extract_bank", gpu=1),
    params:
        gpus=gpus_asked,
        config_path=PATHS.config,
        sections=lambda wildcards: stage_digest(CONFIG, "extract_bank", wildcards.split),
    shell:
        "acar extract-bank --config {params.config_path:q} --split {wildcards.split} --shard {wildcards.shard}"
        " --gpus {params.gpus} 2>&1 | tee {log:q}"


rule seal_bank:
    input:
        labels=lambda wildcards: label_source(CONFIG, wildcards.split),
        videos=lambda wildcards: [
            PATHS.ingest(wildcards.split, shard)
            for shard in shards(CONFIG, wildcards.split)
        ],
        rows=lambda wildcards: [
            PATHS.bank_shard(wildcards.split, shard)
            for shard in shards(CONFIG, wildcards.split)
        ],
    output:
        manifest=PATHS.bank("{split}") / "manifest.json",
        index=PATHS.bank("{split}") / "index.parquet",
    log:
        PATHS.log("seal_bank/{split}"),
    benchmark:
        PATHS.timing("seal_bank/{split}")
    conda:
        "../envs/cpu.yaml"
    threads: threads_of("seal_bank")
    resources:
        **resources_of("seal_bank", gpu=0),
    params:
        config_path=PATHS.config,
        sections=lambda wildcards: stage_digest(CONFIG, "seal_bank", wildcards.split),
    shell:
        "acar seal-bank --config {params.config_path:q} --split {wildcards.split} 2>&1 | tee {log:q}"
