# One self-contained page on the whole run.


rule report:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, "val")),
        metrics=[
            PATHS.evaluation(variant) / "metrics.json" for variant in variants(CONFIG)
        ],
        trainings=[
            PATHS.training(stage) for stage in ((1, 2) if has_stage2(CONFIG) else (1,))
        ],
        examples=PATHS.predictions(examples_variant(CONFIG), "000"),
        banks=lambda wildcards: [
            sealed(split, Artefact("report")) for split in SPLITS if has_stage2(CONFIG)
        ],
    output:
        report(PATHS.report, caption="../workflow/report/page.rst", category="Report"),
    log:
        PATHS.log("report"),
    benchmark:
        PATHS.timing("report")
    conda:
        "../envs/cpu.yaml"
    threads: threads_of("report")
    resources:
        **resources_of("report", gpu=0),
    params:
        config_path=PATHS.config,
        sections=stage_digest(CONFIG, "report"),
    shell:
        "acar report --config {params.config_path:q} 2>&1 | tee {log:q}"
