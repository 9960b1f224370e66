"""Tests of the worker in normal operation, between real brokers or scripted ones."""
