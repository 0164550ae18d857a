//go:build lwprt_cgo

package lwp_test

// With -tags lwprt_cgo and CGO_ENABLED=1 every test of this package runs with
// the C library in the program: package net brings it.

import (
	"net"
	"runtime/debug"
	"testing"
)

func TestCLibraryIsLinkedIn(t *testing.T) {
	if _, err := net.LookupHost("localhost"); err != nil {
		t.Log(err) // asking is enough
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Skip("no build information")
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" && s.Value != "1" {
			t.Error("built with CGO_ENABLED=", s.Value)
		}
	}
}
