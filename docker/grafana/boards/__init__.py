"""The dashboards, one file each, from the PromQL and the panels that they share."""
