#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the folder it was started in: the repository.
set -euo pipefail
pip install --no-deps --editable .
