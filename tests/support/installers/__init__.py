"""What installs the servers and tools of the tests; `make brokers` runs it."""
