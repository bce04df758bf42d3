"""Prefect flows of the warehouse: one module a flow, each readable top to bottom."""
