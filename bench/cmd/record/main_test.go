package main

import (
	"strings"
	"testing"
)

func TestOutputWithoutResultsDoesNotReachTheFile(t *testing.T) {
	const run = `goos: linux
cpu: of the test binary
BenchmarkA/impl=x-2         	     100	        12.5 ns/op	         3.000 ops/turn
--- SKIP: BenchmarkA/impl=y
    a_test.go:3: no compiler: none
BenchmarkB
BenchmarkB/impl=x
PASS
`
	var out, rest strings.Builder
	seen := map[string]bool{"cpu": true}
	pass(&out, &rest, []byte(run), seen)
	pass(&out, &rest, []byte(run), seen)
	const result = "BenchmarkA/impl=x-2         	     100	        12.5 ns/op	         3.000 ops/turn\n"
	if want := "goos: linux\n" + result + result; out.String() != want {
		t.Errorf("file: got %q, want %q", out.String(), want)
	}
	if !strings.Contains(rest.String(), "no compiler") {
		t.Errorf("the reason of a skip is lost: %q", rest.String())
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

func TestCPUSetsHaveTheSizeAskedFor(t *testing.T) {
	sets, err := cpuSets("1")
	if err != nil || len(sets) != 1 || sets[0].Count() != 1 {
		t.Errorf("one CPU: %v, %v", sets, err)
	}
	for _, bad := range []string{"0", "x", "1,", "100000"} {
		if _, err := cpuSets(bad); err == nil {
			t.Errorf("-cpus %s: no error", bad)
		}
	}
}
