"""One module a pipeline stage, named like its Snakemake rule and its subcommand: read, call, write."""
