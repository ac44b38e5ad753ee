"""Tests by kind: unit, scenarios, simulation, e2e, and (apart) bench. CONTRIBUTING.md says which is for what."""
