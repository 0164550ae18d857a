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
	if l.Guard != 928 {
		t.Logf("stack guard is %d, was 928 in every release so far", l.Guard)
	}
}
