"""The ground floor: dtypes, shapes, device names, flags and errors. Imports no other room."""
