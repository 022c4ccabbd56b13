"""Where timings come from: one file a back end, each with the verb `measure`."""
