"""Load on a mesh, or on any MQTT broker, and what it took.

This is the load generator behind ``mesh bench``, so it is a part of the product. The benchmarks of the checkout
(``tools/benchmark``) start what they compare and make their load with it.
"""
