//go:build tools

// Package tools names the program that go.mod pins, so that `go mod tidy` keeps it and what it needs.
package tools

import _ "sigs.k8s.io/kustomize/kustomize/v5"
