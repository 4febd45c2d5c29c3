"""Average precision by AVA's rules, and what is read off predictions."""
