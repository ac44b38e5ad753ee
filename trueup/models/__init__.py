"""Common data models: frozen values that cross the wire, the store and the pure core."""
