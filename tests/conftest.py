pytest_plugins = ["tests.rig.certificate", "tests.rig.compose_model", "tests.rig.running_stack", "tests.rig.traffic"]
