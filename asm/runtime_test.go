//go:build linux && (amd64 || arm64)

package asm

import "testing"

func TestRuntimeIsWhatAssemblyAssumes(t *testing.T) {
	l, why := CheckRuntime()
	if why != "" {
		t.Fatal(why)
	}
	if l.Guard != 928 {
		t.Logf("stack guard is %d, was 928 in every release so far", l.Guard)
	}
}
