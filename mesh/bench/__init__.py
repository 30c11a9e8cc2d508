"""Load on a mesh, or on any MQTT broker, and what it took."""
