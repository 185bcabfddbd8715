"""From any source to a finished store: cleaned, freed of duplicates, tokenised and tagged by many workers; prepare.py tells the story."""
