"""Report: `capacity.json`, `report.html`, metrics, terminal and comparison of searches."""
