"""TINY growth: where, which statistics, which neurons, how large, and the surgery.

Read in this order: `sites`, `patches`, `statistics`, `bottleneck`, `neurons/`, `amplitude`,
`surgery`, `extend`, `schedule`, `grow`; `log` and `record` keep the books.
"""
