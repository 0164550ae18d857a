package main

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

const worker = "./testdata/worker"

func TestCommand(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command: ", err)
	}
	if host, err := exec.Command("go", "env", "GOHOSTARCH").Output(); err != nil || strings.TrimSpace(string(host)) != runtime.GOARCH {
		t.Skip("the go command cannot run what it builds for this GOARCH")
	}
	for _, c := range []struct {
		name   string
		args   []string
		status int
		want   []string // in stdout, or stderr for failed
	}{
		{"clean", []string{worker, "quiet", "(*counter).add", "largest[int]"}, clean,
			[]string{"worker.quiet can run", "worker.(*counter).add can run", "can run on a freestanding thread"}},
		{"fault", []string{worker, "quiet", "counter.name"}, faults,
			[]string{"worker.quiet can run", "worker.counter.name cannot run", "fault: worker.go:10: HeapAllocation", "testdata/worker/worker.go:10", "runtime.mallocgc"}},
		{"append", []string{worker, "keep"}, faults, []string{"append beyond the capacity"}},
		{"capacity", []string{"-capacity", worker, "keep"}, clean, []string{"only if: worker.go:25"}},
		{"except", []string{"-except", "strings.Repeat", worker, "counter.name"}, clean, []string{"not followed: strings.Repeat: by -except"}},
		{"no optimization", []string{"-gcflags=-N -l", worker, "quiet"}, clean, []string{"worker.(*counter).add"}},
		{"no such function", []string{worker, "loud"}, failed, []string{"undefined: loud"}},
		{"no func", []string{worker, "4"}, failed, []string{"int: freestanding: not a func"}},
		{"no expression", []string{worker, "quiet}"}, failed, []string{"not an expression"}},
		{"no package", []string{"./nothing", "quiet"}, failed, []string{"nothing"}},
		{"no arguments", nil, failed, []string{"usage:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			status := run(c.args, &stdout, &stderr)
			text := stdout.String()
			if c.status == failed {
				text = stderr.String()
			}
			if status != c.status {
				t.Errorf("status %d, want %d\n%s%s", status, c.status, &stdout, &stderr)
			}
			for _, w := range c.want {
				if !strings.Contains(text, w) {
					t.Errorf("no %q in\n%s", w, text)
				}
			}
		})
	}
}
