pytest_plugins = ["compose_model", "running_stack", "traffic"]
