# Person boxes at every key frame: a Faster R-CNN trained here, given weights, or imported boxes.

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
        threads: threads_of("train_detector")
        resources:
            **resources_of("train_detector", gpu=1),
        params:
            gpus=gpus_asked,
            config_path=PATHS.config,
            sections=stage_digest(CONFIG, "train_detector"),
        shell:
            "acar train-detector --config {params.config_path:q} --gpus {params.gpus} 2>&1 | tee {log:q}"


rule detect:
    input:
        unpack(lambda wildcards: detector_files(CONFIG, wildcards.split)),
        unpack(lambda wildcards: key_frame_files(CONFIG, wildcards.split)),
        videos=PATHS.ingest("{split}", "{shard}"),
    output:
        directory(PATHS.boxes("{split}", "{shard}")),
    log:
        PATHS.log("detect/{split}-{shard}"),
    benchmark:
        PATHS.timing("detect/{split}-{shard}")
    conda:
        "../envs/gpu.yaml"
    threads: threads_of("detect")
    resources:
        **resources_of("detect", gpu=0 if CONFIG.detector.source == "boxes" else 1),
    params:
        gpus=gpus_asked,
        config_path=PATHS.config,
        sections=lambda wildcards: stage_digest(CONFIG, "detect", wildcards.split),
    shell:
        "acar detect --config {params.config_path:q} --split {wildcards.split} --shard {wildcards.shard}"
        " --gpus {params.gpus} 2>&1 | tee {log:q}"
