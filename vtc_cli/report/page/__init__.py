"""The page: one self-contained HTML file that tells the story of every patch."""
