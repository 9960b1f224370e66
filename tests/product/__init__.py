"""Tests of what is delivered around the code: documents, image, manifests, releases, tools."""
