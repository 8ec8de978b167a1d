"""Printers of loop IR, and the generator of contractions. A printer owns no mathematics."""
