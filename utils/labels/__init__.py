"""From networks to files: the evaluators, pseudo labels and masks, dense CRF, journal, exports."""
