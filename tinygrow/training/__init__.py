"""One trainer for growth and fine-tuning: batches, recipe, loop, evaluation."""
