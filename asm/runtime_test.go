//go:build linux && (amd64 || arm64)

package asm

import "testing"

func TestRuntimeIsWhatAssemblyAssumes(t *testing.T) {
	l, why := CheckRuntime()
	if why != "" {
		t.Fatal(why)
	}
	for i, b := range l.Barriers {
		if !l.Text.Has(b.Lo) || b.Hi-b.Lo > 2<<10 {
			t.Errorf("barrier %d was not found: %#x", i, b)
		}
	}
	if !l.Text.Has(l.Morestack.Lo) || l.Morestack.Hi-l.Morestack.Lo > 1<<10 {
		t.Errorf("morestack was not found: %#x", l.Morestack)
	}
	if main := codeOf(testing.Main); !l.Text.Has(main) || l.Text.Has(l.Text.Hi) || l.Text.Hi-l.Text.Lo < 100<<10 {
		t.Errorf("text is %#x to %#x", l.Text.Lo, l.Text.Hi)
	}
	if l.Guard != 928 {
		t.Logf("stack guard is %d, was 928 in every release so far", l.Guard)
	}
}

func BenchmarkCheckRuntime(b *testing.B) {
	for b.Loop() {
		CheckRuntime()
	}
}
