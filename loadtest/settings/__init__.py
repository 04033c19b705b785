"""Settings: checked command line options, and the plan sent to every worker."""
