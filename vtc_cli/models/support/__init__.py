"""What all adapters share: the contract, geometry, offline models, loading."""
