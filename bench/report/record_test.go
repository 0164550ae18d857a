package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyResultsAndConfigurationReachTheFile(t *testing.T) {
	for line, want := range map[string]int{
		"goos: linux": aKey,
		"BenchmarkA/impl=x-2         	     100	        12.5 ns/op	         3.000 ops/turn": aResult,
		"--- SKIP: BenchmarkA/impl=y":  aRemark,
		"    a_test.go:3: no compiler": aRemark,
		"BenchmarkB":                   nothing,
		"BenchmarkB/impl=x":            nothing,
		"PASS":                         nothing,
		"BenchmarkX 1 fast ns/op":      aResult, // the parser's business
		"BenchmarkX some ns/op x":      aRemark,
	} {
		if got := kind(line); got != want {
			t.Errorf("%q: kind %d, want %d", line, got, want)
		}
	}
}

func TestMachineLinesAreComplete(t *testing.T) {
	got := map[string]string{}
	for _, kv := range machine() {
		got[kv[0]] = kv[1]
		if strings.Contains(kv[1], "\n") || kv[1] == "" {
			t.Errorf("%s: %q is not one line", kv[0], kv[1])
		}
	}
	for _, k := range []string{"cpu", "kernel", "go", "commit"} {
		if got[k] == "" {
			t.Errorf("no line for %s", k)
		}
	}
	if !strings.HasPrefix(got["kernel"], "Linux ") {
		t.Errorf("kernel: %q", got["kernel"])
	}
}

func TestCommandIsOneForAShell(t *testing.T) {
	if got, want := command([]string{"-bench", "A|B", "-o", "x y", "-name=it's"}), `go run . -bench 'A|B' -o 'x y' '-name=it'\''s'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCPUSetsHaveTheSizeAskedFor(t *testing.T) {
	sets, err := cpuSets("1")
	if err != nil || len(sets) != 1 || sets[0].Count() != 1 {
		t.Errorf("one CPU: %v, %v", sets, err)
	}
	if sets, err := cpuSets(""); err != nil || len(sets) == 0 || len(sets) > 2 {
		t.Errorf("no list: %v, %v", sets, err)
	}
	for _, bad := range []string{"0", "x", "1,", "100000"} {
		if _, err := cpuSets(bad); err == nil {
			t.Errorf("-cpus %s: no error", bad)
		}
	}
}

// TestRoundsAreInterleaved fails if rows that are compared would be measured
// minutes apart, or dear rows in other than their share of the rounds.
func TestRoundsAreInterleaved(t *testing.T) {
	var one, two unix.CPUSet
	one.Set(0)
	two.Set(0)
	two.Set(1)
	r := recording{count: 5, dear: 2}
	last, dear, all := 0, map[int]bool{}, 0
	for _, s := range r.steps([]*unix.CPUSet{&one, &two}) {
		if s.round < last {
			t.Errorf("round %d after round %d", s.round, last)
		}
		last = s.round
		all++
		if s.part.dear {
			dear[s.round] = true
		}
		if s.part.cpus > s.set.Count() {
			t.Errorf("%s on %d CPUs", s.part.what, s.set.Count())
		}
	}
	if last != 4 || len(dear) != 2 {
		t.Errorf("%d rounds, %d of them dear; want 5, 2", last+1, len(dear))
	}
	if want := 5*(3+5) + 2*2*2; all != want {
		t.Errorf("%d steps, want %d", all, want)
	}
}
