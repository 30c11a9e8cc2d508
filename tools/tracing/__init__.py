"""Receives and shows traces, for the demonstration and the tests."""
