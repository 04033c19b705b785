"""What is left of a search: `report.html`."""
