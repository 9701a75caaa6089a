"""The claims of the papers, one by one, in experiments of minutes."""
