# Videos and labels: drawn or the user's, decoded to constant rate.

if CONFIG.data.source == "synthetic":

    rule synthesize:
        output:
            directory(PATHS.data),
        log:
            PATHS.log("synthesize"),
        benchmark:
            PATHS.timing("synthesize")
        conda:
            "../envs/cpu.yaml"
        threads: threads_of("synthesize")
        resources:
            **resources_of("synthesize", gpu=0),
        params:
            config_path=PATHS.config,
            sections=stage_digest(CONFIG, "synthesize"),
        shell:
            "acar synthesize --config {params.config_path:q} 2>&1 | tee {log:q}"


rule ingest:
    input:
        labels=lambda wildcards: label_source(CONFIG, wildcards.split),
        # Its time stamp is ignored: a file put beside the labelled videos changes nothing.
        videos=ancient(video_folders(CONFIG)),
    output:
        directory(PATHS.ingest("{split}", "{shard}")),
    log:
        PATHS.log("ingest/{split}-{shard}"),
    benchmark:
        PATHS.timing("ingest/{split}-{shard}")
    conda:
        "../envs/cpu.yaml"
    threads: threads_of("ingest")
    resources:
        **resources_of("ingest", gpu=0),
    params:
        config_path=PATHS.config,
        sections=lambda wildcards: stage_digest(CONFIG, "ingest", wildcards.split),
    shell:
        "acar ingest --config {params.config_path:q} --split {wildcards.split} --shard {wildcards.shard}"
        " 2>&1 | tee {log:q}"
