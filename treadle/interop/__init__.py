"""Other libraries' ways to use tensors."""
