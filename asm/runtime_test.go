package asm

import "testing"

func TestRuntimeIsWhatAssemblyAssumes(t *testing.T) {
	l, why := CheckRuntime()
	if why != "" {
		t.Fatal(why)
	}
	if l.AtomicBarrier.Lo == 0 {
		t.Error("the write barrier of atomic stores was not found")
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
