"""The site: static pages that say whether the numbers can be used, and what they mean."""
