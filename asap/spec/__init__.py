"""What a run is: frozen specs, read from composed configs."""
