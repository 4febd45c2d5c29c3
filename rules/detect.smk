# Person boxes at every second: a Faster R-CNN trained here, given weights, or imported boxes.

if CONFIG.detector.source == "train":

    rule train_detector:
        input:
            unpack(lambda wildcards: annotation_files(CONFIG, "train")),
            unpack(lambda wildcards: initial_detector_files(CONFIG)),
            videos=[PATHS.ingest("train", shard) for shard in shards(CONFIG, "train")],
        output:
            directory(PATHS.detector),
        log:
            PATHS.log("train_detector"),
        benchmark:
            PATHS.timing("train_detector")
        conda:
            "../envs/gpu.yaml"
        threads: GPU_THREADS
        resources:
            gpu=1,
            mem_mb=32000,
            runtime=720,
        params:
            config_path=PATHS.config,
            sections=stage_digest(CONFIG, "train_detector"),
        shell:
            "acar train-detector --config {params.config_path:q} --gpus {resources.gpu} 2>&1 | tee {log:q}"


rule detect:
    input:
        unpack(lambda wildcards: detector_files(CONFIG, wildcards.split)),
        videos=PATHS.ingest("{split}", "{shard}"),
    output:
        directory(PATHS.boxes("{split}", "{shard}")),
    log:
        PATHS.log("detect/{split}-{shard}"),
    benchmark:
        PATHS.timing("detect/{split}-{shard}")
    conda:
        "../envs/gpu.yaml"
    threads: 1 if CONFIG.detector.source == "boxes" else GPU_THREADS
    resources:
        gpu=0 if CONFIG.detector.source == "boxes" else 1,
        mem_mb=16000,
        runtime=720,
    params:
        config_path=PATHS.config,
        sections=lambda wildcards: stage_digest(CONFIG, "detect", wildcards.split),
    shell:
        "acar detect --config {params.config_path:q} --split {wildcards.split} --shard {wildcards.shard}"
        " --gpus {resources.gpu} 2>&1 | tee {log:q}"
