"""Servers under load: arrivals, measurement, chart, and a target for each server."""
