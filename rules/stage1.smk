# Stage 1: the network without a bank (paper section 3.2), trained or taken as `stage1.weights` has it.


rule train_stage1:
    input:
        unpack(lambda wildcards: stage1_files(CONFIG)),
        videos=[
            PATHS.ingest("train", shard)
            for shard in shards(CONFIG, "train")
            if trains_stage1(CONFIG)
        ],
        boxes=[
            PATHS.boxes("train", shard)
            for shard in shards(CONFIG, "train")
            if trains_stage1(CONFIG)
        ],
    output:
        directory(PATHS.training(1)),
    log:
        PATHS.log("train_stage1"),
    benchmark:
        PATHS.timing("train_stage1")
    conda:
        "../envs/gpu.yaml"
    threads: threads_of("train_stage1")
    resources:
        # Lowered to what `--resources gpu=N` offers.
        **resources_of("train_stage1", gpu=stage1_gpus(CONFIG)),
    params:
        gpus=gpus_asked,
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "train_stage1"),
    shell:
        "acar train-stage1 --config {params.config_path:q} --gpus {params.gpus} 2>&1 | tee {log:q}"
