package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the directory of the module that is measured, seen from here.
const root = "../.."

// A part is what a process of its own runs in each round.
type part struct {
	what        string
	bench, skip string // as -test.bench and -test.skip
	benchtime   string // if not the recording's
	quick       string // the same, for a quick one
	cpus        int    // how many it needs
	dear        bool   // takes long, so that it has fewer rounds
}

const (
	parkedRows  = "^BenchmarkParked$"
	processRows = "^BenchmarkProcess$"
	million     = "^BenchmarkParked$/./^fibers=1000000$"
	dearRows    = "^BenchmarkProcess$/./^rss=1Gi$|^BenchmarkProcess$/././^rss=1Gi$"
	jitterRows  = "^BenchmarkJitter$"
	wakeRows    = "^BenchmarkWake$"
)

// suite is everything. What reports percentiles needs a number of operations;
// what reports memory needs a process that has not used any; a million that
// wait are measured when they are there for the second time; and the end of a child
// that shares memory takes the kernel longer the more mappings there are (acct(2)).
var suite = []part{
	{what: "most rows", bench: ".", skip: parkedRows + "|" + processRows + "|" + jitterRows + "|" + wakeRows},
	{what: "those that wait", bench: parkedRows, skip: million},
	{what: "processes", bench: processRows, skip: dearRows},
	{what: "jitter", bench: jitterRows, benchtime: "3000x", quick: "1000x", cpus: 2},
	{what: "wakes", bench: wakeRows, benchtime: "10000x", quick: "2000x", cpus: 2},
	{what: "a million that wait", bench: million, benchtime: "2x", dear: true},
	{what: "dear rows", bench: dearRows, dear: true},
}

// A recording is a run of the suite, -count times.
type recording struct {
	count, dear            int // rounds
	bench, benchtime, cpus string
	quick                  bool
	any                    bool // there are results
}

// quicken makes it one of minutes. Four rounds are what it takes to tell two
// rows apart at all.
func (r *recording) quicken() {
	r.count, r.dear, r.benchtime, r.quick = 4, 0, "15ms", true
}

// A step is one part in one round, on some CPUs.
type step struct {
	round int
	set   *unix.CPUSet
	part  part
}

func (r *recording) steps(sets []*unix.CPUSet) (steps []step) {
	parts := suite
	if r.bench != "" {
		parts = []part{{what: r.bench, bench: r.bench}}
	}
	for round := range r.count {
		for _, set := range sets {
			for _, p := range parts {
				// The dear rounds are spread over all.
				if p.dear && (round+1)*r.dear/r.count == round*r.dear/r.count {
					continue
				}
				if set.Count() >= p.cpus {
					steps = append(steps, step{round, set, p})
				}
			}
		}
	}
	return steps
}

// into records to file. Where a row fails, the others are recorded.
func (r *recording) into(file string) error {
	if m, err := os.ReadFile(filepath.Join(root, "go.mod")); err != nil || !strings.HasPrefix(string(m), "module lwprt\n") {
		return errors.New("run it in bench/report of the module lwprt")
	}
	sets, err := cpuSets(r.cpus)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lwprt-report-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "bench.test")
	build := exec.Command("go", "test", "-c", "-o", binary, "lwprt/bench")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	lines := machine()
	w, err := os.Create(file)
	if err != nil {
		return err
	}
	for _, kv := range lines {
		fmt.Fprintf(w, "%s: %s\n", kv[0], kv[1])
	}
	fmt.Fprintf(w, "command: %s\n", command(os.Args[1:]))
	err = r.run(w, binary, dir, r.steps(sets))
	return errors.Join(err, w.Close())
}

// command writes how the program was called, for a shell.
func command(args []string) string {
	s := "go run ."
	for _, arg := range args {
		if arg == "" || strings.ContainsAny(arg, " \t\"'`\\|&;<>()$*?[]#~!{}") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		s += " " + arg
	}
	return s
}

func (r *recording) run(w io.Writer, binary, dir string, steps []step) (failed error) {
	config := map[string]string{"cpu": ""} // ours is there on every port
	set := func(key, value string) {
		if config[key] != value {
			config[key] = value
			fmt.Fprintf(w, "%s: %s\n", key, value)
		}
	}
	// What this thread starts has its CPU set, which nothing else here needs.
	runtime.LockOSThread()
	p := newProgress(os.Stderr, r.count, steps)
	defer p.end()
	for _, s := range steps {
		benchtime := s.part.benchtime
		if r.quick {
			benchtime = s.part.quick
		}
		if benchtime == "" {
			benchtime = r.benchtime
		}
		set("cpus", strconv.Itoa(s.set.Count()))
		set("benchtime", benchtime)
		if err := unix.SchedSetaffinity(0, s.set); err != nil {
			return fmt.Errorf("sched_setaffinity: %w", err)
		}
		cmd := exec.Command(binary, "-test.run=^$", "-test.timeout=15m",
			"-test.bench="+s.part.bench, "-test.skip="+s.part.skip, "-test.benchtime="+benchtime)
		cmd.Dir = dir
		cmd.Stderr = p
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		p.begin(s)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line := lines.Text()
			switch kind(line) {
			case aResult:
				fmt.Fprintln(w, line)
				r.any = true
				p.row(line)
			case aKey:
				if k, v, _ := strings.Cut(line, ": "); config[k] == "" && k != "cpu" {
					set(k, v)
				}
			case aRemark:
				p.remark(line)
			}
		}
		if err := cmd.Wait(); err != nil {
			err = fmt.Errorf("round %d, %s: %w", s.round+1, s.part.what, err)
			p.remark(err.Error())
			failed = errors.Join(failed, err)
		}
		p.done(s)
	}
	return failed
}

// The kinds of lines that a test binary prints.
const (
	aResult = iota
	aKey    // and value, of the configuration
	aRemark // such as the reason of a skip
	nothing
)

func kind(line string) int {
	f := strings.Fields(line)
	if len(f) >= 4 && strings.HasPrefix(f[0], "Benchmark") {
		if _, err := strconv.Atoi(f[1]); err == nil {
			return aResult
		}
	}
	if k, _, ok := strings.Cut(line, ": "); ok && isKey(k) {
		return aKey
	}
	if len(f) == 0 || line == "PASS" || len(f) == 1 && strings.HasPrefix(line, "Benchmark") {
		return nothing
	}
	return aRemark
}

// isKey says whether s can be the key of a configuration line.
func isKey(s string) bool {
	return s != "" && s[0] >= 'a' && s[0] <= 'z' && !strings.ContainsAny(s, " \t/-")
}

// cpuSets returns a CPU set for each number of CPUs in list.
func cpuSets(list string) (sets []*unix.CPUSet, err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	if list == "" {
		list = "1,2"
		if allowed.Count() == 1 {
			list = "1"
		}
	}
	for _, f := range strings.Split(list, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-cpus: %q is not a number of CPUs", f)
		}
		if n > allowed.Count() {
			return nil, fmt.Errorf("-cpus: %d CPUs wanted, %d allowed", n, allowed.Count())
		}
		set := new(unix.CPUSet)
		for cpu := 0; set.Count() < n; cpu++ {
			if allowed.IsSet(cpu) {
				set.Set(cpu)
			}
		}
		sets = append(sets, set)
	}
	return sets, nil
}
