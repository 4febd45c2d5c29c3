"""What artefacts were made from, whether that still holds, and what need not run again."""
