# One self-contained page on the whole run.


rule report:
    input:
        unpack(lambda wildcards: annotation_files(CONFIG, "val")),
        metrics=[
            PATHS.evaluation(variant) / "metrics.json" for variant in variants(CONFIG)
        ],
        trainings=[PATHS.training(1), PATHS.training(2)],
        examples=PATHS.predictions("stage2", "000"),
        banks=lambda wildcards: [sealed(split, Artefact("report")) for split in SPLITS],
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
