"""From cams to files: pseudo labels, dense CRF, the journal of what is done, exports."""
