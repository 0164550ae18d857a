package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// A progress says on a terminal, in one line, how far a recording is; and
// elsewhere, a line for each step.
type progress struct {
	mu       sync.Mutex // standard error comes when it likes
	w        *os.File
	terminal bool
	rounds   int
	left     []step
	began    time.Time
	rows     int
	step     time.Time
	took     map[string]time.Duration // a step of the kind, the last time
	said     map[string]bool
	what     string
}

func newProgress(w *os.File, rounds int, steps []step) *progress {
	p := &progress{w: w, rounds: rounds, left: steps, began: time.Now(), took: map[string]time.Duration{}, said: map[string]bool{}}
	if info, err := w.Stat(); err == nil {
		p.terminal = info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (s step) key() string { return fmt.Sprint(s.set.Count(), s.part.what) }

func (p *progress) begin(s step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = time.Now()
	p.left = p.left[1:]
	cpus := "1 CPU"
	if n := s.set.Count(); n != 1 {
		cpus = fmt.Sprint(n, " CPUs")
	}
	p.what = fmt.Sprintf("round %d of %d, %s, %s%s", s.round+1, p.rounds, cpus, s.part.what, p.remaining(s))
	p.line("")
}

// remaining estimates the time that is left by that of the steps before.
func (p *progress) remaining(now step) string {
	var d time.Duration
	for _, s := range append([]step{now}, p.left...) {
		t, ok := p.took[s.key()]
		if !ok {
			return ""
		}
		d += t
	}
	return fmt.Sprintf(", %v left", d.Round(time.Second))
}

// line shows where the recording is.
func (p *progress) line(row string) {
	at := time.Since(p.began).Round(time.Second)
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%v: %s: %s", at, p.what, row)
	} else if row == "" {
		fmt.Fprintf(p.w, "%v: %s\n", at, p.what)
	}
}

// row is called with the line of each result.
func (p *progress) row(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows++
	name, _, _ := strings.Cut(line, " ")
	p.line(strings.TrimPrefix(strings.TrimSpace(name), "Benchmark"))
}

// remark passes on, once, what is neither a result nor about the machine.
func (p *progress) remark(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said[line] {
		return
	}
	p.said[line] = true
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintln(p.w, line)
}

// Write passes on the standard error of a test binary.
func (p *progress) Write(b []byte) (int, error) {
	p.remark(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

func (p *progress) done(s step) { p.took[s.key()] = time.Since(p.step) }

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = fmt.Sprintf("%d results", p.rows)
	p.line("")
	if p.terminal {
		fmt.Fprintln(p.w)
	}
}
