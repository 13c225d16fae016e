"""From a spec to records: the rows of a run, one after the other or together."""
