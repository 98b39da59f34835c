"""What a speedrun made, told: `report.json`, the page `report.html`, and sections of the model's card."""
