"""From arrays to what one looks at: overlays, contact sheets, the HTML report."""
