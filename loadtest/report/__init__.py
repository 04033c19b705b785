"""Report of a run: `summary.json`, `report.html`, and the table on the terminal."""
