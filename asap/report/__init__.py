"""Records in, tables, figures and dashboards out: nothing here measures anything."""
