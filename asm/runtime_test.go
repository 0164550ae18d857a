//go:build linux && (amd64 || arm64)

package asm

import (
	"strings"
	"testing"
)

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
	if !l.Text.Has(l.Barrier.Lo) || l.Barrier.Hi-l.Barrier.Lo > 2<<10 {
		t.Errorf("the barrier of compiled code was not found: %#x", l.Barrier)
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

// TestForeignBarriersAreRefused takes what another release of Go could have for
// the functions whose faults are recognised.
func TestForeignBarriersAreRefused(t *testing.T) {
	good, why := CheckRuntime()
	if why != "" {
		t.Fatal(why)
	}
	const compiled = "the write barrier of compiled code"
	for _, c := range []struct {
		change func(*Layout)
		want   string
	}{
		{func(l *Layout) { l.Barrier = Range{} }, compiled},
		{func(l *Layout) { l.Barrier.Lo += 16 }, compiled},               // without its frame
		{func(l *Layout) { l.Barrier = l.Morestack }, compiled},          // another function
		{func(l *Layout) { l.Barrier.Hi = l.Barrier.Lo + 16 }, compiled}, // without the load
		{func(l *Layout) { l.Barriers[0] = Range{} }, "the write barrier of atomic"},
		{func(l *Layout) { l.Barriers[1] = Range{} }, "the write barrier of copies"},
		{func(l *Layout) { l.Morestack = Range{} }, "the function prologue"},
	} {
		l := good
		c.change(&l)
		if why := l.check(); !strings.HasPrefix(why, c.want) {
			t.Errorf("%q, want %q", why, c.want)
		}
	}
	// Every byte of it counts, but the operands that differ between releases.
	code := append([]byte(nil), good.Barrier.code()...)
	if !skippable(code) {
		t.Fatal("a copy of the code is not recognised")
	}
	seen := 0
	for i := range code[:64] {
		code[i] ^= 0xff
		if !skippable(code) {
			seen++
		}
		code[i] ^= 0xff
	}
	if seen < 12 {
		t.Errorf("a change of %d bytes only is noticed", seen)
	}
}

func BenchmarkCheckRuntime(b *testing.B) {
	for b.Loop() {
		CheckRuntime()
	}
}
