"""Vision-language models that grade edits: what they are asked, and what is kept of their answers."""
