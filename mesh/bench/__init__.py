"""The load generator: puts load on a mesh, or on any MQTT broker, and measures speed, losses and cost.

It is a part of the product, because ``mesh bench`` uses it. The benchmarks of the checkout (``tools/benchmark``) start
the systems that they compare, and use it for the load.
"""
