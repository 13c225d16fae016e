"""Mirrors of finished records to dashboards."""
