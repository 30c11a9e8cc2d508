"""Traces, received and shown: for the demonstration and the tests."""
