// Command check-dashboard says what Grafana's schema of dashboards has against a file: unknown fields, missing ones, and
// values of another type, in the dashboard, its panels and their queries.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// Without these it knows no panels and no queries.
	plugins.RegisterDefaultPlugins()
	found := dashboard.Dashboard{}
	if err := found.UnmarshalJSONStrict(text); err != nil {
		return err
	}
	return found.Validate()
}
