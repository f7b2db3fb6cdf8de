"""TINY growth: where, which statistics, which neurons, how large, and the surgery.

Read in this order: `sites`, `statistics`, `bottleneck`, `neurons/`, `amplitude`, `surgery`,
`schedule`, `grow`.
"""
