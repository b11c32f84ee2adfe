"""Named recipes: each YAML file is one complete way of running; `default` changes nothing."""
