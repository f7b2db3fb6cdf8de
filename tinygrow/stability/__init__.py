"""Which units of a ReLU network never matter on its domain, with proofs."""
