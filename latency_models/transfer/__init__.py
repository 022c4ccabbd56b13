"""Few-shot latency prediction: 10 to 100 timings of a new device, with or without knowledge of other devices.

Read in this order: `operators` (networks as counts of operators), `population` (imaginary devices, the prior over
operator times), `operator_prior` (that prior as inputs of a linear model), `student_process` (Gaussian processes with
heavy-tailed noise, many settings at once), `few_shot` (the method), `forecast` (its calibrated intervals),
`source_models` (devices whose tables are known), `budget_search` (the best network under a budget, few timings),
`model` (the method as the registered latency model "transfer"). Everything here needs numpy and scipy only.
"""
