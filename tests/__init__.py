"""The tests of Connector; README.md says where a test belongs and how to run a part of them."""
