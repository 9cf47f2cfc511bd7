"""The built-in data set: drawn chest radiographs ("phantoms")."""
