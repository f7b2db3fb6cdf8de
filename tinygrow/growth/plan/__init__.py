"""Where, when and until when: one file an idea; `tinygrow.growth.plan.plan` puts them together."""
