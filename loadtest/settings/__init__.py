"""Settings: command line options, checked, and the plan that goes to every worker."""
