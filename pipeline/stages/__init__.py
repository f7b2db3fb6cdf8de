"""One module a stage; a stage never imports another."""
