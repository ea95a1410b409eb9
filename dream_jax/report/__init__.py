"""What a reader meets: tables, figures and one page made from `results.json`."""
