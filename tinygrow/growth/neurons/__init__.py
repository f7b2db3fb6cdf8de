"""What to add: one file a method; `tinygrow.growth.neurons.method` chooses."""
