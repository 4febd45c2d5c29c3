# Stage 2: a new network that attends to the sealed bank (paper section 3.3).


rule train_stage2:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, "train")),
        unpack(lambda wildcards: backbone_files(CONFIG)),
        videos=[PATHS.ingest("train", shard) for shard in shards(CONFIG, "train")],
        boxes=[PATHS.boxes("train", shard) for shard in shards(CONFIG, "train")],
        # The manifest alone: it names every shard and their digests, holds no times, and is small enough for
        # Snakemake to compare by content, so a bank sealed again from unchanged shards does not retrain.
        bank=PATHS.bank("train") / "manifest.json",
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
    threads: GPU_THREADS
    resources:
        # Snakemake lowers it to what `--resources gpu=N` offers.
        gpu=CONFIG.run.train_gpus,
        mem_mb=64000,
        runtime=4320,
    params:
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "train_stage2"),
    shell:
        "acar train-stage2 --config {params.config_path:q} --gpus {resources.gpu} 2>&1 | tee {log:q}"
