# Stage 2: a new network that attends to the sealed bank (paper section 3.3).


rule train_stage2:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, "train")),
        unpack(lambda wildcards: backbone_files(CONFIG)),
        videos=[PATHS.ingest("train", shard) for shard in shards(CONFIG, "train")],
        boxes=[PATHS.boxes("train", shard) for shard in shards(CONFIG, "train")],
        # A network trained anew needs a bank of its own, and stage 2 after it.
        bank_weights=PATHS.training(1),
        # The manifest alone: it names every shard and their digests, holds no times, and is small enough for
        # Snakemake to compare by content. A bank that is only rebuilt, from what it came from, does not retrain.
        bank=lambda wildcards: sealed("train", Artefact("train_stage2")),
        # Only looked at: both banks must come from the same weights.
        val_bank=ancient(PATHS.bank("val") / "manifest.json"),
    output:
        directory(PATHS.training(2)),
    log:
        PATHS.log("train_stage2"),
    benchmark:
        PATHS.timing("train_stage2")
    conda:
        "../envs/gpu.yaml"
    threads: threads_of("train_stage2")
    resources:
        # Lowered to what `--resources gpu=N` offers.
        **resources_of("train_stage2", gpu=CONFIG.run.train_gpus),
    params:
        gpus=gpus_asked,
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "train_stage2"),
    shell:
        "acar train-stage2 --config {params.config_path:q} --gpus {params.gpus} 2>&1 | tee {log:q}"
