"""Mathematics that several methods share; plain functions of tensors."""
